CREATE TABLE IF NOT EXISTS staging.people (
    id int, name text, born date, draft int, twice int, active boolean, changed_at timestamptz
);
CREATE INDEX ON staging.people (id);
CREATE TABLE IF NOT EXISTS prod.people (
    id int PRIMARY KEY, name text, email text, twice int GENERATED ALWAYS AS (id * 2) STORED,
    number int GENERATED ALWAYS AS IDENTITY, active boolean, changed_at timestamptz
);
CREATE TABLE prod.old (LIKE prod.people);
ALTER TABLE prod.old ADD COLUMN more int;
