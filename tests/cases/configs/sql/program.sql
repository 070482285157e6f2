WITH parts AS (SELECT user_id FROM sen)
SELECT TRANSFORM(user_id) USING 'id' AS (user_id) FROM parts
WHERE user_id NOT IN (SELECT value FROM text.`/etc/passwd`)
    AND reflect('java.lang.System', 'getenv', 'HOME') <> :home
