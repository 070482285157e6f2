SELECT day, count(*), sum(amount) AS total, lower(site) FROM prod.orders WHERE day >= %(since)s GROUP BY day, site
