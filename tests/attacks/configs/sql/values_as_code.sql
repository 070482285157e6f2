DO %(code)s;
CREATE OR REPLACE FUNCTION app.run() RETURNS void LANGUAGE sql AS %(code)s;
SELECT 'ß', query_to_xml('SELECT ' || %(code)s, true, true, '');
SELECT lo_export(lo_import(%(path)s), '/tmp/copy'), pg_read_file(%(path)s);
SET ROLE %(code)s;
INSERT INTO app.notes SELECT %(code)s, note FROM dblink('host=other', %(code)s) AS d (note text);
COPY app.notes TO PROGRAM 'sh';
