"""Queries for Spark over a view `t` of numbers `id`, with a value `n`: what must not run, and what only looks so."""

_QUERIES = {
    "SELECT TRANSFORM(id) USING 'id' AS (b) FROM t": "runs a program on the workers",
    "FROM t SELECT TRANSFORM(id) USING 'id'": "runs a program on the workers",
    "WITH x AS (SELECT TRANSFORM(id) USING 'id' AS (b) FROM t) SELECT * FROM x": "runs a program on the workers",
    "SELECT (SELECT reflect('java.lang.System', 'getenv', 'HOME')) FROM t": "calls a method of Java",
    "SELECT java_method('java.lang.System', 'getenv', 'HOME')": "calls a method of Java",
    "SELECT * FROM text.`/etc/passwd`": "is not a view of the step",
    "SELECT * FROM t WHERE id IN (SELECT value FROM csv.`/etc/passwd`)": "is not a view of the step",
    "SELECT from_protobuf(id, 'M', '/etc/passwd') FROM t": 'calls "from_protobuf", which is not among the functions',
    "SELECT my_own(id) FROM t": 'calls "my_own", which is not among the functions',
    "SELECT * FROM python_worker_logs()": 'calls "python_worker_logs", which is not among the functions',
    "SELECT * FROM IDENTIFIER(:n)": "makes a name of a text",
    "WITH x AS (SELECT * FROM x) SELECT * FROM x": "reads x, which is not a view of the step",
    "WITH x AS (SELECT * FROM y), y AS (SELECT 1 AS id) SELECT * FROM x, y": "reads y, which is not",
    "SELECT * FROM (WITH x AS (SELECT 1 AS id) SELECT * FROM x) CROSS JOIN x": "reads x, which is not",
    "SELECT (WITH x AS (SELECT 1 AS id) SELECT max(id) FROM x) FROM x": "reads x, which is not a view of the step",
    "SELECT * FROM t AS x CROSS JOIN x": "reads x, which is not a view of the step",
    "WITH x AS (WITH y AS (SELECT 1 AS id) SELECT * FROM y) SELECT * FROM x, y": "reads y, which is not",
    "WITH x AS (SELECT 1 AS id) SELECT * FROM x UNION ALL (WITH y AS (SELECT 2 AS id) SELECT * FROM y) UNION ALL"
    " SELECT * FROM y": "reads y, which is not",
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
    "WITH x AS (SELECT id FROM t), y AS (SELECT * FROM x) SELECT (SELECT max(id) FROM x) AS a FROM Y",
    "WITH x AS (WITH z AS (SELECT id FROM t) SELECT * FROM z) SELECT * FROM x UNION ALL SELECT * FROM X",
    "WITH x AS (SELECT 1 AS id), y AS (WITH x AS (SELECT * FROM x) SELECT * FROM x) SELECT * FROM y",
    "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 3) SELECT * FROM r",
    "SELECT 'TRANSFORM(a) USING ''id''' AS said, 'it\\'s text.`/etc/passwd`' AS b FROM t -- reflect(1)",
    "SELECT id FROM t UNION ALL SELECT id FROM range(2)",
    "SELECT e FROM t LATERAL VIEW explode(array(id)) x AS e",
    "SELECT id, :n AS n, `id` AS `odd name` FROM t WHERE id > 0 ORDER BY id",
]
