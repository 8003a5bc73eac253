"""Doors out of a read session: what could lift its fence, and what writes behind it."""

WRITES = {
    "INSERT": "INSERT INTO door (note) VALUES ('forbidden')",
    "UPDATE": "UPDATE door SET note = 'forbidden'",
    "DELETE": "DELETE FROM door",
    "DML in a CTE": "WITH made AS (INSERT INTO door (note) VALUES ('forbidden') RETURNING 1) SELECT * FROM made",
    "a function": "SELECT write_behind()",
    "DDL": "CREATE TABLE forbidden (id int)",
    "SELECT INTO": "SELECT 1 AS id INTO forbidden",
    "MERGE": "MERGE INTO door USING (SELECT 1) AS x ON false WHEN NOT MATCHED THEN INSERT (note) VALUES ('forbidden')",
}
# Statements that lift the fence, or try to; with what is bound to `$1`, `$2`.
DOORS: dict[str, tuple[str, tuple[object, ...]]] = {
    "nothing": ("SELECT 1", ()),
    "SET TRANSACTION READ WRITE": ("SET TRANSACTION READ WRITE", ()),
    "BEGIN": ("BEGIN", ()),
    "BEGIN READ WRITE": ("BEGIN READ WRITE", ()),
    "START TRANSACTION READ WRITE": ("START TRANSACTION READ WRITE", ()),
    "SET transaction_read_only": ("SET transaction_read_only = off", ()),
    "SET LOCAL transaction_read_only": ("SET LOCAL transaction_read_only TO 'off'", ()),
    "SET default_transaction_read_only": ("SET default_transaction_read_only = off", ()),
    "SET SESSION default_transaction_read_only": ('SET SESSION "default_transaction_read_only" = 0', ()),
    "SET LOCAL default_transaction_read_only": ("SET LOCAL default_transaction_read_only = false", ()),
    "SET default_transaction_read_only TO DEFAULT": ("SET default_transaction_read_only TO DEFAULT", ()),
    "RESET default_transaction_read_only": ("RESET default_transaction_read_only", ()),
    "SET SESSION CHARACTERISTICS": ("SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE", ()),
    "set_config": ("SELECT set_config('default_transaction_read_only', 'off', false)", ()),
    "set_config of the transaction": ("SELECT set_config('transaction_read_only', 'off', true)", ()),
    "set_config, value bound": ("SELECT set_config('default_transaction_read_only', $1, false)", ("off",)),
    "set_config, all bound": (
        "SELECT set_config($1::text, $2::text, false)", ("default_transaction_read_only", "off"),
    ),
    "set_config, of the transaction, bound": (
        "SELECT set_config($1::text, $2::text, true)", ("transaction_read_only", "off"),
    ),
    "set_config, put together": ("SELECT set_config('default_transaction_' || 'read_only', 'off', false)", ()),
    "update of pg_settings": (
        "UPDATE pg_settings SET setting = 'off' WHERE name = 'default_transaction_read_only'", (),
    ),
    "COMMIT": ("COMMIT", ()),
    "ROLLBACK": ("ROLLBACK", ()),
    "COMMIT AND CHAIN": ("COMMIT AND CHAIN", ()),
    "RESET ALL": ("RESET ALL", ()),
    "DISCARD ALL": ("DISCARD ALL", ()),
    "SET ROLE": ("SET ROLE climber", ()),
    "DO": ("DO $$ BEGIN PERFORM set_config('default_transaction_read_only', 'off', false); END $$", ()),
    "DO, of the transaction": ("DO $$ BEGIN SET TRANSACTION READ WRITE; END $$", ()),
    "a function": ("SELECT lift()", ()),
    "a function of the transaction": ("SELECT lift_now()", ()),
    "PREPARE and EXECUTE": (
        "PREPARE lifting AS SELECT set_config('default_transaction_read_only', 'off', false)", (),
    ),
}  # fmt: skip
# What lifts the fence and writes, in one statement.
BOTH = {
    "DO": "DO $$ BEGIN SET TRANSACTION READ WRITE; INSERT INTO door (note) VALUES ('forbidden'); END $$",
    "DO with set_config": (
        "DO $$ BEGIN PERFORM set_config('transaction_read_only', 'off', true); "
        "INSERT INTO door (note) VALUES ('forbidden'); END $$"
    ),
    "DO with COMMIT": (
        "DO $$ BEGIN PERFORM set_config('default_transaction_read_only', 'off', false); COMMIT; "
        "INSERT INTO door (note) VALUES ('forbidden'); END $$"
    ),
    "CALL": "CALL climb()",
    "a function": "SELECT lift_and_write()",
    "a function and COMMIT": "SELECT lift(); COMMIT; INSERT INTO door (note) VALUES ('forbidden')",
    "BEGIN in a text": "BEGIN READ WRITE; INSERT INTO door (note) VALUES ('forbidden'); COMMIT",
    "COMMIT in a text": "COMMIT; SET default_transaction_read_only = off; INSERT INTO door (note) VALUES ('forbidden')",
}
SETUP = """
CREATE TABLE door (note text);
INSERT INTO door VALUES ('untouched');
CREATE ROLE climber; GRANT ALL ON door TO climber;
ALTER ROLE climber SET default_transaction_read_only = off;
CREATE FUNCTION write_behind() RETURNS void LANGUAGE sql AS
  $$ INSERT INTO door (note) VALUES ('forbidden') $$;
CREATE FUNCTION lift() RETURNS void LANGUAGE plpgsql AS
  $$ BEGIN PERFORM set_config('default_transaction_read_only', 'off', false); END $$;
CREATE FUNCTION lift_now() RETURNS void LANGUAGE plpgsql AS
  $$ BEGIN PERFORM set_config('transaction_read_only', 'off', true); END $$;
CREATE FUNCTION escape() RETURNS void LANGUAGE plpgsql AS
  $$ BEGIN PERFORM set_config('standard_conforming_strings', 'off', false); END $$;
CREATE FUNCTION lift_and_write() RETURNS void LANGUAGE plpgsql AS
  $$ BEGIN PERFORM lift_now(); PERFORM lift(); INSERT INTO door (note) VALUES ('forbidden'); END $$;
CREATE PROCEDURE climb() LANGUAGE plpgsql AS
  $$ BEGIN PERFORM lift(); COMMIT; INSERT INTO door (note) VALUES ('forbidden'); END $$;
"""
UNTOUCHED = "SELECT (SELECT string_agg(note, ',') FROM door) || coalesce(to_regclass('forbidden')::text, '')"
