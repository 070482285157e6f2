-- Before the run: some history, and a prod that differs from it in every way there is.

INSERT INTO raw.bt_crypto_transaction_history
SELECT 'BRASIL', n, to_char(day, 'FMDD/FMMM/YYYY'), 'BTC', 100 + n, 2, day + interval '1 hour'
FROM generate_series(1, 100) AS n, generate_series(%(date)s::date - 1, %(date)s::date, '1 day') AS day;

-- Rows 1-50 are as in raw, 51-75 have another value, 76-100 are switched off, 101-150 are not in raw.
INSERT INTO prod.bt_crypto_events
SELECT 'BRASIL', n, day, 'BTC', (100 + n) * 2 + (n BETWEEN 51 AND 75)::int, n NOT BETWEEN 76 AND 100,
       '2020-01-01', '2020-01-01'
FROM generate_series(1, 150) AS n, generate_series(%(date)s::date - 1, %(date)s::date, '1 day') AS day;

-- Outside the window of two days.
INSERT INTO prod.bt_crypto_events
SELECT 'MEXICO', n, %(date)s::date - 2, 'ETH', n, true, '2020-01-01', '2020-01-01' FROM generate_series(1, 10) AS n;
