SELECT site, amount, pg_sleep(1000) FROM pg_catalog.pg_authid, raw.orders WHERE (site).secret IS NULL
