"""A grammar of SQL that changes its session in plain sight or behind a name, and what of a session can be seen."""

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

SETUP = """
CREATE ROLE tenant;
CREATE SCHEMA app;
CREATE TABLE metric (id int, name text, values text);
CREATE FUNCTION become(text) RETURNS text LANGUAGE sql VOLATILE AS
    $$ SELECT set_config('lagwise.tenant', $1 || random(), false) $$;
CREATE FUNCTION shadow() RETURNS text LANGUAGE sql VOLATILE AS $$ SELECT become('x') $$;
CREATE FUNCTION app.lower(text) RETURNS text LANGUAGE sql VOLATILE AS $$ SELECT public.become($1) $$;
CREATE FUNCTION "Near"(a int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE FUNCTION near(a int) RETURNS int LANGUAGE sql STABLE AS 'SELECT $1';
CREATE FUNCTION enter(metric) RETURNS text LANGUAGE sql VOLATILE AS $$ SELECT become($1.name) $$;
CREATE FUNCTION records(int) RETURNS SETOF record LANGUAGE sql VOLATILE AS $$ SELECT become('x') $$;
CREATE FUNCTION always(text) RETURNS bool LANGUAGE sql VOLATILE AS $$ SELECT become($1) IS NOT NULL $$;
CREATE FUNCTION both_of(text, text) RETURNS text LANGUAGE sql VOLATILE AS $$ SELECT become($2) $$;
CREATE PROCEDURE enroll() LANGUAGE sql AS $$ SELECT public.become('x') $$;
CREATE OPERATOR !> (LEFTARG = text, RIGHTARG = text, FUNCTION = both_of);
CREATE OPERATOR app.+ (LEFTARG = text, RIGHTARG = text, FUNCTION = both_of);
CREATE AGGREGATE gathered (text) (SFUNC = both_of, STYPE = text, INITCOND = '');
CREATE VIEW entered AS SELECT id, set_config('lagwise.tenant', 'view' || random(), false) AS name FROM metric;
CREATE VIEW through AS SELECT * FROM entered;
CREATE VIEW fine AS SELECT id, upper(name) AS name FROM metric;
CREATE TABLE watched (id int);
CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM become('x'); RETURN NEW; END $$;
CREATE TRIGGER watching BEFORE INSERT OR UPDATE ON watched FOR EACH ROW EXECUTE FUNCTION watch();
CREATE TABLE filled (id serial PRIMARY KEY, name text DEFAULT become('x'), key uuid DEFAULT gen_random_uuid());
CREATE TABLE owned (id int PRIMARY KEY);
CREATE TABLE owner_of (id int REFERENCES owned ON DELETE CASCADE);
CREATE TRIGGER watching AFTER INSERT ON owner_of FOR EACH ROW EXECUTE FUNCTION watch();
CREATE TABLE parts (id int) PARTITION BY RANGE (id);
CREATE TABLE part PARTITION OF parts DEFAULT;
CREATE TRIGGER watching BEFORE INSERT ON part FOR EACH ROW EXECUTE FUNCTION watch();
"""

DOMAINS = """
CREATE DOMAIN tenant AS text CHECK (always(VALUE));
CREATE TYPE pair AS (a tenant, b int);
CREATE FUNCTION takes(tenant) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';
CREATE TABLE kept (id int, name tenant);
"""
"""Types whose values run code as they are made: beside them few statements with a literal are harmless."""

FILL = "TRUNCATE metric; INSERT INTO metric VALUES (1, 'red', 'blue'), (2, 'red', 'blue')"
"""The rows as they were, whatever a statement has written."""

_STATE = """
SELECT current_setting('default_transaction_read_only'),
    concat_ws(',', current_setting('work_mem'), current_setting('search_path'), current_setting('TimeZone'),
              current_setting('xmloption'), current_setting('client_encoding'),
              current_setting('default_transaction_isolation')),
    concat_ws(',', current_setting('lagwise.tenant', true), current_setting('lagwise.other', true)),
    session_user::text, current_user::text, current_setting('role'),
    (SELECT string_agg(concat_ws(':', classid, objid, mode), ',' ORDER BY objid, mode) FROM pg_locks
     WHERE pid = pg_backend_pid() AND locktype = 'advisory'),
    (SELECT string_agg(relation::regclass::text || mode, ',' ORDER BY relation, mode) FROM pg_locks
     WHERE pid = pg_backend_pid() AND locktype = 'relation' AND mode = 'AccessExclusiveLock'),
    (SELECT string_agg(name, ',' ORDER BY name) FROM pg_prepared_statements WHERE from_sql),
    (SELECT string_agg(name, ',' ORDER BY name) FROM pg_cursors WHERE name <> ''),
    (SELECT string_agg(relname, ',' ORDER BY relname) FROM pg_class WHERE relnamespace = pg_my_temp_schema()),
    (SELECT string_agg(c, ',' ORDER BY c) FROM pg_listening_channels() AS c)
"""


@dataclass(frozen=True)
class State:
    """All of a session's state that PostgreSQL shows."""

    fenced: bool
    in_transaction: bool
    rest: tuple[Any, ...]


async def state_of(connection: Any) -> State:
    """The session's state now."""
    in_transaction = connection.is_in_transaction()
    fence, *rest = await connection.fetchrow(_STATE)
    return State(fence == "on", in_transaction, tuple(rest))


_LOCAL = st.sampled_from(["false", "true", "1 = 0", "NULL", "'f'", "'on'::bool", "NOT true"])
_NAME = st.sampled_from(
    ["'lagwise.tenant'", "'search_path'", "'lagwise.' || 'other'", "'default_transaction_read_only'",
     "'Default_Transaction_Read_Only'", "'work_mem'::text", "U&'lagwise\\002etenant'", "E'work\\x5fmem'",
     "'transaction_read_only'", "$$lagwise.other$$"]
)  # fmt: skip
_VALUE = st.sampled_from(["'1000'", "'off'", "'on'", "'public, app'", "random()::text", "name", "values"])
_SET_CONFIG = st.sampled_from(
    ["set_config", "SET_CONFIG", "pg_catalog.set_config", '"set_config"', 'U&"set\\005fconfig"',
     "U&\"set!005fconfig\" UESCAPE '!'", "pg_catalog . set_config", 'pg_catalog."set_config"']
)  # fmt: skip
_CALLS = st.one_of(
    st.builds("{}({}, {}, {})".format, _SET_CONFIG, _NAME, _VALUE, _LOCAL),
    st.sampled_from(
        ["set_config(setting_name => 'lagwise.tenant', new_value => '7', is_local => false)",
         "set_config('lagwise.tenant', VARIADIC is_local => false)",
         "pg_advisory_lock(7)::text", "pg_try_advisory_lock_shared(id)::text", "pg_advisory_xact_lock(9)::text",
         "pg_try_advisory_xact_lock(1, 2)::text", "pg_advisory_unlock_all()::text",
         "become(name)", "become(values)", "public.become('x')", "app.lower(name)", '"become"(name)', "Become('x')",
         "shadow()", "m.enter", "(m).enter", "enter(m)", "(m.*)::metric::text", "name::tenant", "CAST(name AS tenant)",
         "tenant(name)", "('{x}'::tenant[])[1]", "(NULL::pair).a", "takes('x')::text", "takes(name)::text",
         "name !> values", "name OPERATOR(app.+) values", "name OPERATOR(public.!>) values",
         "(json_populate_record(NULL::pair, '{\"a\": \"x\"}')).a", "(ROW(name, 1)::pair).a",
         "query_to_xml('SELECT become(''x'')', true, true, '')::text",
         "table_to_xml('entered', true, true, '')::text", "ts_rewrite('a'::tsquery, 'SELECT become(''x'')')::text",
         "ts_rewrite('a'::tsquery, 'SELECT ''a''::tsquery, to_tsquery(become(''x''))')::text",
         "(SELECT string_agg(word, '') FROM ts_stat('SELECT to_tsvector(become(''x''))'))",
         "pg_input_is_valid('x', 'tenant')::text", "domain_in('x', 'tenant'::regtype, -1)::text",
         "setseed(0.5)::text", "pg_notify('heard', 'x')::text", "nextval('filled_id_seq')::text"]
    ),
)  # fmt: skip
_PLAIN = st.sampled_from(
    ["name", "lower(name)", "upper(m.name) || 'é'", "near(id)::text", '"Near"(id)::text', "'set_config(1)'",
     "$$;SET x = 1$$", "E'\\'; SET work_mem = 100'", "coalesce(name, values)", "m.name::varchar(9)", "now()::text",
     "CASE WHEN id > 1 THEN 'a' ELSE name END", "to_char(now(), 'YYYY')", "gen_random_uuid()::text", "md5(values)",
     "row_to_json(m)::text", "to_jsonb(m) ->> 'name'", "current_setting('work_mem')", "trim(both ' ' from name)"]
)  # fmt: skip
_EXPRESSION: st.SearchStrategy[str] = st.recursive(
    st.one_of(_CALLS, _PLAIN),
    lambda inner: st.one_of(
        st.builds("lower({})".format, inner),
        st.builds("coalesce(NULL, {})".format, inner),
        st.builds("({} || {})".format, inner, inner),
        st.builds("CASE WHEN ({}) IS NULL THEN 'a' ELSE ({}) END".format, inner, inner),
        st.builds("(ARRAY[{}, 'a'])[1]".format, inner),
        st.builds("(SELECT {})".format, inner),
        st.builds("nullif({}, '')".format, inner),
        st.builds("greatest({}, 'a')".format, inner),
        st.builds("trim({})".format, inner),
        st.builds("({})::varchar(5)".format, inner),
        st.builds("(ROW({}, 1))::text".format, inner),
        st.builds('({} COLLATE "C")'.format, inner),
        st.builds("(({}) IN ('a', 'b'))::text".format, inner),
        st.builds("(({}) BETWEEN 'a' AND 'b')::text".format, inner),
        st.builds("(({}) = ANY (ARRAY['a']))::text".format, inner),
        st.builds("xmlelement(name a, {})::text".format, inner),
        st.builds("extract(year from to_timestamp(length({})))::text".format, inner),
    ),
    max_leaves=3,
)
_PLACES = (
    "SELECT {} FROM metric AS m",
    "SELECT 1 FROM metric AS m WHERE ({}) IS NOT NULL",
    "SELECT 1 FROM metric AS m ORDER BY ({})",
    "SELECT DISTINCT ON ({}) 1 FROM metric AS m",
    "SELECT max({}) FROM metric AS m",
    "SELECT gathered({}) FROM metric AS m",
    "SELECT count(*) FILTER (WHERE ({}) IS NULL) FROM metric AS m",
    "SELECT row_number() OVER (PARTITION BY {}) FROM metric AS m",
    "SELECT count(*) FROM metric AS m GROUP BY ({})",
    "SELECT 1 FROM metric AS m GROUP BY id, name HAVING max({}) IS NULL",
    "SELECT 1 FROM metric AS m LIMIT length((SELECT {} FROM metric AS m LIMIT 1))",
    "SELECT 1 FROM metric AS m, LATERAL (SELECT {}) AS x(y)",
    "SELECT 1 FROM metric AS m JOIN fine ON ({}) = fine.name",
    "SELECT 1 FROM metric AS m, unnest(ARRAY[{}]) AS x",
    "SELECT 1 FROM metric AS m, ROWS FROM (generate_series(1, length({}))) AS x",
    "SELECT EXISTS (SELECT 1 FROM metric AS m WHERE ({}) = 'a')",
    "WITH w AS (SELECT {} AS a FROM metric AS m) SELECT * FROM w",
    "WITH w(values) AS MATERIALIZED (SELECT {} FROM metric AS m) SELECT 1",
    "WITH RECURSIVE w AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM w, metric AS m WHERE n < 2 AND ({}) > '') TABLE w",
    "SELECT 1 UNION SELECT length({}) FROM metric AS m",
    "VALUES ((SELECT {} FROM metric AS m LIMIT 1))",
    "(SELECT {} FROM metric AS m)",
    "EXPLAIN SELECT {} FROM metric AS m",
    "EXPLAIN ANALYZE SELECT {} FROM metric AS m",
    "EXPLAIN (ANALYZE false, COSTS off) SELECT {} FROM metric AS m",
    "EXPLAIN (ANALYZE, COSTS off) SELECT {} FROM metric AS m",
    "SELECT {} FROM metric AS m FOR UPDATE",
    "SELECT {} AS a INTO TEMP made FROM metric AS m",
    "CREATE TEMP TABLE made AS SELECT {} AS a FROM metric AS m",
    "DECLARE c CURSOR FOR SELECT {} FROM metric AS m",
    "DECLARE c CURSOR WITH HOLD FOR SELECT {} FROM metric AS m",
    "PREPARE p AS SELECT {} FROM metric AS m",
    "INSERT INTO metric (name) SELECT {} FROM metric AS m LIMIT 1",
    "UPDATE metric AS m SET name = {} WHERE id = 1",
    "DELETE FROM metric AS m WHERE ({}) = 'never'",
    "INSERT INTO filled (name) SELECT {} FROM metric AS m RETURNING id",
    "WITH w AS (UPDATE metric AS m SET name = name RETURNING {}) SELECT 1",
    "MERGE INTO metric AS m USING fine ON m.id = fine.id WHEN MATCHED THEN UPDATE SET name = {}",
)
_WHOLE = (
    "SELECT * FROM entered", "SELECT * FROM through", "TABLE fine", "SELECT name FROM public.entered", "SELECT 1",
    "SELECT * FROM records(7) AS (values text)", "SELECT enter FROM metric, LATERAL enter(metric)",
    "SELECT metric.enter FROM metric", "SELECT * FROM set_config('work_mem', '999', false)",
    "SELECT become(values.n) FROM (SELECT 'red' AS n) AS values",
    "SELECT become(values$1x) FROM (SELECT 'red' AS values$1x) AS t",
    "SELECT set_config(values, '999', false) FROM (SELECT 'work_mem' AS values) AS t",
    "SET work_mem = 999", "SET work_mem TO DEFAULT", "SET LOCAL work_mem = 999", "RESET work_mem", "RESET ALL",
    "SET search_path = app", "SET ROLE tenant", "SET LOCAL ROLE tenant", "SET SESSION AUTHORIZATION tenant",
    "SET TIME ZONE 'UTC'", "SET LOCAL TIME ZONE 3", "SET SCHEMA 'app'", "SET NAMES 'UTF8'", "SET XML OPTION DOCUMENT",
    "SET lagwise.tenant = 'x'", "SET LOCAL lagwise.tenant = 'x'", "SET lagwise.tenant FROM CURRENT",
    "SET default_transaction_read_only = off", "SET default_transaction_read_only = on",
    "RESET default_transaction_read_only", "SET transaction_read_only = off",
    'SET "default_transaction_read_only" TO false', "SET default_transaction_read_only TO DEFAULT",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE", "SET TRANSACTION READ WRITE", "SET TRANSACTION READ ONLY",
    "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY",
    "UPDATE pg_settings SET setting = '999' WHERE name = 'work_mem'",
    "UPDATE pg_catalog.pg_settings SET setting = 'off' WHERE name = 'default_transaction_read_only'",
    "PREPARE p AS SELECT 1", "DEALLOCATE ALL", "DISCARD ALL", "DISCARD TEMP", "DISCARD PLANS", "LISTEN heard",
    "UNLISTEN *", "NOTIFY heard", "CREATE TEMP TABLE made (id int)", "CREATE TABLE pg_temp.made (id int)",
    "CREATE TEMP VIEW made AS SELECT 1", "CREATE TEMP SEQUENCE made", "CREATE SCHEMA IF NOT EXISTS app",
    "BEGIN", "BEGIN READ WRITE", "START TRANSACTION", "COMMIT", "ROLLBACK", "END", "ABORT", "SAVEPOINT s",
    "ROLLBACK TO s", "COMMIT AND CHAIN", "LOCK TABLE metric", "SET CONSTRAINTS ALL DEFERRED", "SHOW work_mem",
    "DO $$ BEGIN PERFORM set_config('work_mem', '999', false); END $$", "CALL enroll()", "CLOSE ALL",
    "FETCH ALL FROM c", "EXPLAIN ANALYZE EXECUTE p", "EXECUTE p", "LOAD 'auto_explain'",
    "INSERT INTO watched VALUES (1)", "INSERT INTO filled DEFAULT VALUES", "INSERT INTO kept VALUES (1, 'x')",
    "INSERT INTO parts VALUES (1)", "WITH w AS (INSERT INTO watched VALUES (1) RETURNING id) SELECT * FROM w",
    "INSERT INTO owned VALUES (1) ON CONFLICT DO NOTHING", "ANALYZE metric",
    "SELECT set_config('search_path', 'app', false); SELECT 1", "SELECT 1; SELECT 2", "SELECTED", "SELECT ((1)",
)  # fmt: skip
_QUERY = st.builds(str.format, st.sampled_from(_PLACES), _EXPRESSION)
_ONE = st.one_of(_QUERY, _QUERY, _QUERY, st.sampled_from(_WHOLE))
_FRAME = st.sampled_from(
    ["{}", "{}", "{}", "/* a */ {} -- b", "-- SELECT\n{}", "/* /* SELECT 1 */ ; */{}", "\n\t{} ;", "{}; SELECT 1",
     "SELECT 1; {}", "{}/*route='/items',trace='00-af'*/"]
)  # fmt: skip


def statements() -> st.SearchStrategy[str]:
    """Texts of one statement or several, that run or fail on the database of SETUP."""
    return st.one_of(
        st.builds(str.format, _FRAME, _ONE),
        st.builds("{}; {}".format, _ONE, _ONE),
    )
