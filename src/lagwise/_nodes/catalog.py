"""Reads what a database says of its names: which functions, operators, types and tables run volatile code."""

from typing import Any

from lagwise._decide.built_in import CONVERTING, EFFECTS, HARMLESS, HARMLESS_IN_C
from lagwise._decide.catalog import Catalog, Names
from lagwise._nodes.catalog_query import SQL
from lagwise._nodes.fingerprint import fingerprint

MOST = 20_000
"""The most names of one kind. Further harmless ones count as unknown; with more harmful ones, nothing is harmless."""

# The latest catalogs of this process, for Routers on one database, and for one that reads its own again. Each has the
# judgements made with it, which stay warm so.
_latest: dict[tuple[object, ...], Catalog] = {}
_KEPT = 8


async def read_catalog(driver: Any, timeout: float) -> Catalog:  # noqa: ASYNC109 - each statement has its own
    """What the database of this asyncpg connection says of its names now; any role may ask, on a replica too.

    The query takes some 100 ms, half a second more where there are 2,000 tables, and answers a few hundred kilobytes.
    Where nothing has changed since one of the latest readings, it takes a tenth of that, and the answer is that
    reading's Catalog. Objects that are made or changed later are unknown, or as they were, until the next reading.
    `timeout` is in seconds, for each statement; BEGIN and COMMIT have none, so the caller bounds the whole. Raises what
    the driver raises.
    """
    standard = driver.get_settings().standard_conforming_strings == "on"
    # One snapshot for both: a change between them would be kept under the fingerprint of before.
    async with driver.transaction(isolation="repeatable_read", readonly=True):
        # With JIT compilation the query takes seconds. A limit of the role's is meant for the application's statements;
        # this one ends the query on the server, too, when the connection is gone.
        limit = f"SET LOCAL statement_timeout = {round(timeout * 1000)}"
        await driver.execute(f"SET LOCAL jit = off; {limit}", timeout=timeout)
        state = await fingerprint(driver, timeout)
        if state is None:
            return await _read(driver, timeout, standard=standard)
        key = (standard, *state)
        found = _latest.pop(key, None) or await _read(driver, timeout, standard=standard)
    _latest[key] = found
    for oldest in list(_latest)[:-_KEPT]:
        _latest.pop(oldest, None)
    return found


async def _read(driver: Any, timeout: float, *, standard: bool) -> Catalog:  # noqa: ASYNC109
    arguments = sorted(HARMLESS), sorted(HARMLESS_IN_C), sorted(EFFECTS), MOST + 1, sorted(CONVERTING)
    found: dict[str, list[tuple[str, str]]] = {}
    for kind, schema, name in await driver.fetch(SQL, *arguments, timeout=timeout):
        found.setdefault(kind, []).append((schema, name))
    harmful = ("volatile", "attributes", "volatile_operators", "types", "relations", "written")
    # Functions of `EFFECTS` have an effect of their own there.
    volatile = [(schema, name) for schema, name in found.get("volatile", ()) if not _explained(schema, name)]
    return Catalog(
        volatile=Names(volatile),
        known=Names(found.get("known", ())[:MOST]),
        attributes=frozenset(name for _, name in found.get("attributes", ())),
        volatile_operators=Names(found.get("volatile_operators", ())),
        known_operators=Names(found.get("known_operators", ())[:MOST]),
        types=Names(found.get("types", ())),
        known_types=Names(found.get("known_types", ())[:MOST]),
        relations=Names(found.get("relations", ())),
        written=Names(found.get("written", ())),
        unseen="unseen" in found or any(len(found.get(kind, ())) > MOST for kind in harmful),
        standard_strings=standard,
    )


def _explained(schema: str, name: str) -> bool:
    return schema == "pg_catalog" and name in EFFECTS
