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

-- One row for each rule that a row broke in a run. The values are text: a rejected value may not fit its type.
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
    inserted_at     text
);
CREATE INDEX IF NOT EXISTS bt_crypto_events_rejects_run
    ON dqm.bt_crypto_events_rejects (suite, dag_id, run_id);

-- One row for each validation; a retry replaces its own.
CREATE TABLE IF NOT EXISTS dqm.dq_runs (
    suite         text NOT NULL,
    dag_id        text NOT NULL,
    run_id        text NOT NULL,
    task_id       text NOT NULL,
    run_date      date NOT NULL,
    passed        boolean NOT NULL,
    expectations  integer NOT NULL,
    failed        integer NOT NULL,
    rejected      bigint NOT NULL,
    details       jsonb NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (dag_id, run_id, suite)
);
