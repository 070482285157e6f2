SELECT 1 AS total;
DELETE FROM prod.orders
