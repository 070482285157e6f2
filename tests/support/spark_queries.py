"""Queries for Spark over a view `t` of numbers `id`, with a value `n`: what must not run, and what only looks so."""

_QUERIES = {
    "SELECT TRANSFORM(id) USING 'id' AS (b) FROM t": "runs a program on the workers",
    "FROM t SELECT TRANSFORM(id) USING 'id'": "runs a program on the workers",
    "WITH x AS (SELECT TRANSFORM(id) USING 'id' AS (b) FROM t) SELECT * FROM x": "runs a program on the workers",
    "SELECT (SELECT reflect('java.lang.System', 'getenv', 'HOME')) FROM t": "calls a method of Java",
    "SELECT java_method('java.lang.System', 'getenv', 'HOME')": "calls a method of Java",
    "SELECT * FROM text.`/etc/passwd`": "is not a view of the step",
    "SELECT * FROM t WHERE id IN (SELECT value FROM csv.`/etc/passwd`)": "is not a view of the step",
    "SELECT * FROM IDENTIFIER(:n)": "makes a name of a text",
}
_COMMANDS = {
    "SET spark.sql.ansi.enabled=false": "is a command",
    "INSERT INTO t SELECT 1": "writes a table",
    "WITH x AS (SELECT 1 AS id) INSERT INTO t SELECT * FROM x": "writes a table",
    "CREATE TABLE z AS SELECT 1": "is a command",
    "ADD JAR '/tmp/x.jar'": "is a command",
    "BEGIN SELECT 1; END": "is a command",
    "FROM t MAP id USING 'cat' AS b": "runs a program on the workers",
    "SELECT system.builtin.reflect('java.lang.System', 'getenv', 'HOME')": "calls a method of Java",
}
REFUSED_BY_SPARK = _QUERIES | _COMMANDS
"""Each with what Spark's own parser finds in it."""

HARMLESS = [
    "SELECT id FROM T",
    "WITH x AS (SELECT id FROM t) SELECT x.id, y.b FROM x JOIN (SELECT 1 AS b) AS y ON true",
    "SELECT 'TRANSFORM(a) USING ''id''' AS said, 'it\\'s text.`/etc/passwd`' AS b FROM t -- reflect(1)",
    "SELECT id FROM t UNION ALL SELECT id FROM range(2)",
    "SELECT e FROM t LATERAL VIEW explode(array(id)) x AS e",
    "SELECT id, :n AS n, `id` AS `odd name` FROM t WHERE id > 0 ORDER BY id",
]
