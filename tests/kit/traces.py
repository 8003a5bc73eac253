"""What a session may leave in its connection, and how to find it there."""

from sqlalchemy import text

TRACES = {
    "SET": "SET search_path = tenant_{n}",
    "set_config": "SELECT set_config('lagwise.tenant', 'tenant_{n}', false)",
    "advisory lock": "SELECT pg_advisory_lock({n})",
    "prepared statement": "PREPARE left_{n} AS SELECT 1",
    "role": "SET ROLE pg_monitor",
    "transaction": "BEGIN",
    "quoted call": "SELECT \"set_config\"('lagwise.tenant', 'tenant_{n}', false)",
}
STATE = text("""
    SELECT current_setting('search_path'), coalesce(current_setting('lagwise.tenant', true), ''), current_user,
           (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),
           (SELECT count(*) FROM pg_prepared_statements WHERE from_sql)
""")
# What a connection says that carries nothing of an earlier session.
CLEAN = ('"$user", public', "", "lagwise", 0, 0, False)
