-- The tables of the day %(day)s.
CREATE TABLE IF NOT EXISTS raw.days (day date, share numeric);
CRATE TABLE raw.nights (day date);
INSERT INTO raw.days SELECT %(day)s, 100 % 3 WHERE 'a' <> '%(day)s' AND %(shore)s > 0;
COMMIT;
COPY raw.days TO PROGRAM 'id';
