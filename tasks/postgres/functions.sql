-- The functions of Postgres that SQL in a spec may call: those whose result depends only on their arguments, the time
-- zone, the clock or chance, and that neither change nor reveal anything. A name is here if all functions of that name
-- are harmless. `tests/tasks/test_functions.py` compares the result with functions.json.
WITH judged AS (
    SELECT
        proname AS name,
        -- Volatile functions write, wait, lock, or read files; these only look at the clock or the dice.
        bool_and(
            provolatile <> 'v'
            OR proname IN (
                'clock_timestamp', 'gen_random_uuid', 'random', 'random_normal', 'timeofday', 'uuidv4', 'uuidv7'
            )
        )
        -- Parts of the server's own machinery.
        AND NOT bool_or(prorettype = ANY (machinery) OR proargtypes::oid [] && machinery)
        AND proname !~ '_validator$'
        -- The server, its settings, its catalogue, its other tables.
        AND (
            proname !~ '^(pg|txid|has|inet_client|inet_server|lo|binary_upgrade)_|_to_xml|_description$'
            OR proname IN (
                'pg_collation_for', 'pg_column_size', 'pg_input_is_valid', 'pg_size_bytes', 'pg_size_pretty',
                'pg_typeof'
            )
        )
        AND proname NOT IN ('current_setting', 'row_security_active') AS harmless,
        bool_or(proretset) AS returns_rows,
        bool_or(prokind = 'a') AS is_aggregate
    FROM
        pg_proc,
        (
            SELECT ARRAY[
                'internal', 'cstring', 'trigger', 'event_trigger', 'language_handler', 'fdw_handler',
                'index_am_handler', 'table_am_handler', 'tsm_handler', 'pg_ddl_command'
            ]::regtype []::oid [] AS machinery
        ) AS types
    WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind <> 'p'
    GROUP BY proname
)

SELECT name::text, returns_rows, is_aggregate
FROM judged
WHERE harmless
ORDER BY name::text COLLATE "C"
