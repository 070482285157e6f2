-- Whether the orders of a day are there; used by the example of wait.sql.
SELECT count(*) > 0 AS arrived
FROM raw.orders
WHERE placed_on = %(day)s
