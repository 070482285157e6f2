-- A gate for each step: a session whose application_name stands in gate.closed is kept busy in the middle of its work,
-- after a statement that wrote rows, made a table or gathered statistics. It stays so until it is killed. A validation
-- begins its record before its work and updates it in the middle.

CREATE SCHEMA gate;
GRANT USAGE ON SCHEMA gate TO PUBLIC;
CREATE TABLE gate.closed (name text PRIMARY KEY);
GRANT ALL ON gate.closed TO PUBLIC;

-- Busy, not asleep: a sleeping session ends with the server at once, one that computes does not notice.
CREATE FUNCTION gate.pass() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    session_name text := current_setting('application_name');
BEGIN
    IF EXISTS (SELECT FROM gate.closed WHERE name = session_name) THEN
        PERFORM set_config('application_name', 'held ' || session_name, false);
        WHILE clock_timestamp() < statement_timestamp() + interval '1 minute' LOOP
        END LOOP;
        RAISE EXCEPTION '% was held for a minute, and nobody killed it', session_name;
    END IF;
END $$;

CREATE FUNCTION gate.pass_rows() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM gate.pass();
    RETURN NULL;
END $$;

-- For an expression in statistics, which only ANALYZE computes; said to be immutable, or it would not be taken.
CREATE FUNCTION gate.pass_statistics(value bigint) RETURNS bigint IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
    PERFORM gate.pass();
    RETURN value;
END $$;

CREATE FUNCTION gate.attach() RETURNS event_trigger LANGUAGE plpgsql AS $$
DECLARE
    made text;
    written text;
BEGIN
    FOR made IN SELECT object_identity FROM pg_event_trigger_ddl_commands() WHERE object_type = 'table' LOOP
        written := CASE made WHEN 'dqm.dq_runs' THEN 'UPDATE' ELSE 'INSERT' END;
        EXECUTE format('CREATE TRIGGER gate AFTER %s ON %s EXECUTE FUNCTION gate.pass_rows()', written, made);
        IF made = 'prod.bt_crypto_events' THEN
            CREATE STATISTICS prod.gate ON (gate.pass_statistics(user_id)) FROM prod.bt_crypto_events;
        END IF;
        PERFORM gate.pass();
    END LOOP;
END $$;

CREATE EVENT TRIGGER gate ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION gate.attach();
