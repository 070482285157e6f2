-- The tables of crypto_events_dag. Every statement can run again: existing tables stay as they are.

CREATE SCHEMA IF NOT EXISTS raw;
CREATE SCHEMA IF NOT EXISTS staging;
CREATE SCHEMA IF NOT EXISTS prod;
CREATE SCHEMA IF NOT EXISTS dqm;

-- As delivered: no constraint rejects bad rows here, the gates find them.
CREATE TABLE IF NOT EXISTS raw.bt_crypto_transaction_history (
    site_id         text,
    user_id         bigint,
    purchase_date   text,  -- D/M/YYYY
    crypto_type     text,
    purchase_price  numeric(18, 2),
    purchase_units  numeric(18, 8),
    inserted_at     timestamp NOT NULL  -- UTC
);
-- Rows arrive in the order of their day, so a block range index finds them and costs the insert next to nothing.
CREATE INDEX IF NOT EXISTS bt_crypto_transaction_history_inserted_at
    ON raw.bt_crypto_transaction_history USING brin (inserted_at) WITH (autosummarize = on);

-- No key either: suite_staging_candidate reports duplicates, with the rows that are to blame.
CREATE TABLE IF NOT EXISTS staging.bt_crypto_events_candidate (
    site_id         text,
    user_id         bigint,
    purchase_date   date,
    crypto_type     text,
    purchase_price  numeric(18, 2),
    purchase_units  numeric(18, 8),
    purchase_value  numeric(36, 10)  -- wide enough for price x units without rounding
);

CREATE TABLE IF NOT EXISTS prod.bt_crypto_events (
    site_id         text NOT NULL,
    user_id         bigint NOT NULL,
    purchase_date   date NOT NULL,
    crypto_type     text NOT NULL,
    purchase_value  numeric(36, 10) NOT NULL,
    is_active       boolean NOT NULL DEFAULT true,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (site_id, user_id, purchase_date, crypto_type)
);
CREATE INDEX IF NOT EXISTS bt_crypto_events_purchase_date
    ON prod.bt_crypto_events USING brin (purchase_date) WITH (autosummarize = on);

-- One row for each rule that a row broke in a validation. The values are text: a rejected value may not fit its type.
CREATE TABLE IF NOT EXISTS dqm.bt_crypto_events_rejects (
    suite           text NOT NULL,
    dag_id          text NOT NULL,
    run_id          text NOT NULL,
    reason          text NOT NULL,
    quarantined_at  timestamptz NOT NULL DEFAULT now(),
    site_id         text,
    user_id         text,
    purchase_date   text,
    crypto_type     text,
    purchase_price  text,
    purchase_units  text,
    purchase_value  text,
    inserted_at     text,
    validation_id   uuid
);
CREATE INDEX IF NOT EXISTS bt_crypto_events_rejects_run
    ON dqm.bt_crypto_events_rejects (suite, dag_id, run_id);

-- One row for each try of a validation. Without an end, it is still at work or was killed.
CREATE TABLE IF NOT EXISTS dqm.dq_runs (
    validation_id  uuid PRIMARY KEY,  -- in Airflow, the id of the try's task instance
    deployment     text NOT NULL,
    dag_id         text NOT NULL,
    run_id         text NOT NULL,
    task_id        text NOT NULL,
    map_index      integer NOT NULL,
    try_number     integer,
    run_date       date NOT NULL,
    suite          text NOT NULL,
    table_name     text NOT NULL,
    batch_where    text,
    version        text,  -- "build 7" is that of taskflow.builds; "rows …" changes with the rows that were judged
    row_count      bigint,
    expectations   integer NOT NULL,
    failed         integer,
    rejected       bigint,
    passed         boolean,  -- null without a verdict
    error          text,  -- why there is none
    details        jsonb NOT NULL,  -- the rules with their thresholds, and how the batch met them
    started_at     timestamptz NOT NULL,
    ended_at       timestamptz
);

-- The earlier form had one row for each suite of a run, which a retry replaced: migrate it, and keep what it knows.
DO $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_attribute WHERE attrelid = 'dqm.dq_runs'::regclass AND attname = 'validation_id'
    ) THEN
        ALTER TABLE dqm.dq_runs RENAME COLUMN created_at TO started_at;
        ALTER TABLE dqm.dq_runs
            DROP CONSTRAINT IF EXISTS dq_runs_pkey,
            ADD COLUMN validation_id uuid,
            ADD COLUMN deployment text,
            ADD COLUMN map_index integer,
            ADD COLUMN try_number integer,
            ADD COLUMN table_name text,
            ADD COLUMN batch_where text,
            ADD COLUMN version text,
            ADD COLUMN row_count bigint,
            ADD COLUMN error text,
            ADD COLUMN ended_at timestamptz,
            ALTER COLUMN started_at DROP DEFAULT,
            ALTER COLUMN failed DROP NOT NULL,
            ALTER COLUMN rejected DROP NOT NULL,
            ALTER COLUMN passed DROP NOT NULL;
        UPDATE dqm.dq_runs
        SET validation_id = gen_random_uuid(), deployment = '', map_index = -1, ended_at = started_at,
            table_name = details #>> '{batch,table}', batch_where = details #>> '{batch,where}',
            row_count = (details ->> 'rows')::bigint;
        ALTER TABLE dqm.dq_runs
            ADD PRIMARY KEY (validation_id),
            ALTER COLUMN deployment SET NOT NULL,
            ALTER COLUMN map_index SET NOT NULL,
            ALTER COLUMN table_name SET NOT NULL;
    END IF;
    IF NOT EXISTS (
        SELECT FROM pg_attribute
        WHERE attrelid = 'dqm.bt_crypto_events_rejects'::regclass AND attname = 'validation_id'
    ) THEN
        ALTER TABLE dqm.bt_crypto_events_rejects ADD COLUMN validation_id uuid;
        UPDATE dqm.bt_crypto_events_rejects AS rejects
        SET validation_id = runs.validation_id
        FROM dqm.dq_runs AS runs
        WHERE (rejects.suite, rejects.dag_id, rejects.run_id) = (runs.suite, runs.dag_id, runs.run_id);
    END IF;
END $$;

CREATE INDEX IF NOT EXISTS dq_runs_run ON dqm.dq_runs (dag_id, run_id, suite);

-- The last recorded verdict on each suite of a run, and the rows that it rejected: each bad row of a run once.
CREATE OR REPLACE VIEW dqm.dq_runs_latest AS
SELECT DISTINCT ON (deployment, dag_id, run_id, suite) *
FROM dqm.dq_runs
WHERE passed IS NOT NULL
ORDER BY deployment, dag_id, run_id, suite, ended_at DESC;

CREATE OR REPLACE VIEW dqm.bt_crypto_events_rejects_latest AS
SELECT rejects.*
FROM dqm.bt_crypto_events_rejects AS rejects
JOIN dqm.dq_runs_latest AS latest USING (validation_id);
