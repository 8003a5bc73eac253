"""One number for each table of the system catalog that a reading depends on: equal numbers, equal answer."""

from typing import Any

# The columns that `catalog_query.SQL` reads, by table. Trees are compared as text, functions by their number: how a
# function's name is shown depends on the search_path.
COLUMNS = {
    "pg_aggregate": "aggfnoid::o, aggtransfn::o, aggfinalfn::o, aggcombinefn::o, aggserialfn::o, aggdeserialfn::o,"
    " aggmtransfn::o, aggminvtransfn::o, aggmfinalfn::o",
    "pg_amproc": "amproc::o",
    "pg_attrdef": "adrelid, adbin::t",
    "pg_attribute": "attrelid, atttypid",
    "pg_cast": "castsource, casttarget, castfunc, castcontext",
    "pg_class": "oid, relname, relnamespace, relkind, relrowsecurity, reltype",
    "pg_constraint": "oid, contype, conrelid, contypid, confrelid, confdeltype, confupdtype, conbin::t",
    "pg_index": "indrelid, indexprs::t, indpred::t",
    "pg_inherits": "inhrelid, inhparent",
    "pg_language": "oid, lanname",
    "pg_namespace": "oid, nspname",
    "pg_operator": "oid, oprname, oprnamespace, oprcode::o",
    "pg_policy": "polrelid, polcmd, polqual::t, polwithcheck::t",
    "pg_proc": "oid, proname, pronamespace, prolang, prokind, provolatile, pronargs, pronargdefaults, proargtypes,"
    " proallargtypes, prorettype, proargdefaults::t",
    "pg_range": "rngtypid, rngsubtype, rngmultitypid",
    "pg_rewrite": "ev_class, ev_type, CASE WHEN ev_class OPERATOR(pg_catalog.>=) 16384::o THEN ev_action::t END",
    "pg_trigger": "tgrelid, tgfoid, tgenabled, tgconstraint, tgqual::t",
    "pg_type": "oid, typname, typnamespace, typtype, typcategory, typelem, typbasetype, typinput::o, typreceive::o,"
    " typoutput::o, typsend::o, typdefaultbin::t",
}

_SQL = "SELECT " + ", ".join(
    f"(SELECT pg_catalog.sum(pg_catalog.hash_record_extended(ROW({columns}), 0)) FROM pg_catalog.{table})"
    for table, columns in COLUMNS.items()
).replace("::o", "::pg_catalog.oid").replace("::t", "::pg_catalog.text")


async def fingerprint(driver: Any, timeout: float) -> tuple[object, ...] | None:  # noqa: ASYNC109 - the statement's
    """What changes with each change that a reading of the catalog would show; None before PostgreSQL 14.

    It takes a tenth of the time of a reading. `timeout` is in seconds. Raises what the driver raises.
    """
    if driver.get_server_version().major < 14:  # hash_record_extended
        return None
    return tuple(await driver.fetchrow(_SQL, timeout=timeout))
