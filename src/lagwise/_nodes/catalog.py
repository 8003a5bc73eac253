"""Reads what a database says of its names: which functions, operators, types and tables run volatile code."""

from typing import Any

from lagwise._decide.built_in import EFFECTS, HARMLESS, HARMLESS_IN_C
from lagwise._decide.catalog import Catalog, Names
from lagwise._nodes.fingerprint import fingerprint

MOST = 20_000
"""The most names of one kind. Further harmless ones count as unknown; with more harmful ones, nothing is harmless."""

# Everything is qualified: the role's search_path may shadow any name, operators too.
_SQL = r"""
WITH RECURSIVE bad_function AS MATERIALIZED (
    SELECT f.oid FROM pg_catalog.pg_proc f
    JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) f.pronamespace
    JOIN pg_catalog.pg_language l ON l.oid OPERATOR(pg_catalog.=) f.prolang
    WHERE f.provolatile OPERATOR(pg_catalog.=) 'v' AND f.prokind OPERATOR(pg_catalog.<>) 'p'
    AND NOT (n.nspname OPERATOR(pg_catalog.=) 'pg_catalog'
             AND f.proname::pg_catalog.text OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.text[]))
    AND NOT (l.lanname OPERATOR(pg_catalog.=) 'c'
             AND f.proname::pg_catalog.text OPERATOR(pg_catalog.=) ANY ($2::pg_catalog.text[]))
    UNION
    SELECT f.oid FROM pg_catalog.pg_proc f
    JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) f.pronamespace
    WHERE n.nspname OPERATOR(pg_catalog.=) 'pg_catalog'
    AND f.proname::pg_catalog.text OPERATOR(pg_catalog.=) ANY ($3::pg_catalog.text[])
), bad_aggregate AS MATERIALIZED (
    SELECT oid FROM bad_function
    UNION
    SELECT a.aggfnoid::pg_catalog.oid FROM pg_catalog.pg_aggregate a JOIN bad_function b
    ON b.oid OPERATOR(pg_catalog.=) ANY (ARRAY[a.aggtransfn::pg_catalog.oid, a.aggfinalfn, a.aggcombinefn,
        a.aggserialfn, a.aggdeserialfn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn])
), bad_type AS (
    SELECT t.oid FROM pg_catalog.pg_type t JOIN bad_function b
    ON b.oid OPERATOR(pg_catalog.=) ANY (ARRAY[t.typinput::pg_catalog.oid, t.typreceive, t.typoutput, t.typsend])
    WHERE t.typtype OPERATOR(pg_catalog.<>) 'p'
    UNION
    SELECT c.casttarget FROM pg_catalog.pg_cast c JOIN bad_function b ON b.oid OPERATOR(pg_catalog.=) c.castfunc
    UNION
    SELECT c.contypid FROM pg_catalog.pg_constraint c,
    LATERAL pg_catalog.regexp_matches(c.conbin::pg_catalog.text,
        ':(?:funcid|opfuncid|aggfnoid|winfnoid) (\d+)', 'g') AS used(id)
    JOIN bad_aggregate b ON b.oid OPERATOR(pg_catalog.=) used.id[1]::pg_catalog.oid
    WHERE c.contypid OPERATOR(pg_catalog.<>) 0
    UNION
    SELECT made.oid FROM bad_type b, LATERAL (
        SELECT t.oid FROM pg_catalog.pg_type t
        WHERE t.typelem OPERATOR(pg_catalog.=) b.oid OR t.typbasetype OPERATOR(pg_catalog.=) b.oid
        UNION ALL
        SELECT c.reltype FROM pg_catalog.pg_attribute a
        JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) a.attrelid
        WHERE a.atttypid OPERATOR(pg_catalog.=) b.oid AND c.reltype OPERATOR(pg_catalog.<>) 0
        UNION ALL
        SELECT r.rngtypid FROM pg_catalog.pg_range r WHERE r.rngsubtype OPERATOR(pg_catalog.=) b.oid
    ) made
), callable AS MATERIALIZED (
    -- Other functions make a value of such a type of what they are given, or answer one.
    SELECT f.oid, f.pronamespace, f.proname, f.pronargs, f.pronargdefaults, f.proargtypes, f.prokind,
        f.oid OPERATOR(pg_catalog.=) ANY (SELECT oid FROM bad_aggregate)
        OR f.prorettype OPERATOR(pg_catalog.=) ANY (SELECT oid FROM bad_type)
        OR EXISTS (SELECT FROM bad_type b WHERE b.oid OPERATOR(pg_catalog.=) ANY (f.proargtypes)) AS bad
    FROM pg_catalog.pg_proc f
), bad_call AS MATERIALIZED (
    SELECT oid FROM callable WHERE bad
), reference AS MATERIALIZED (
    -- What the stored trees of views, policies, defaults and checks use.
    SELECT tree.relation, tree.reading, used.id[1] AS kind, used.id[2]::pg_catalog.oid AS id FROM (
        SELECT r.ev_class AS relation, TRUE AS reading, r.ev_action::pg_catalog.text AS body
        FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) r.ev_class
        WHERE c.relkind OPERATOR(pg_catalog.=) 'v' AND r.ev_type OPERATOR(pg_catalog.=) '1'
        AND c.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
        UNION ALL
        SELECT p.polrelid, p.polcmd OPERATOR(pg_catalog.=) ANY (ARRAY['r'::pg_catalog."char", '*']),
            pg_catalog.concat(p.polqual::pg_catalog.text, p.polwithcheck::pg_catalog.text)
        FROM pg_catalog.pg_policy p
        UNION ALL
        SELECT d.adrelid, FALSE, d.adbin::pg_catalog.text FROM pg_catalog.pg_attrdef d
        UNION ALL
        SELECT c.conrelid, FALSE, c.conbin::pg_catalog.text FROM pg_catalog.pg_constraint c
        WHERE c.contype OPERATOR(pg_catalog.=) 'c' AND c.conrelid OPERATOR(pg_catalog.<>) 0
    ) tree, LATERAL pg_catalog.regexp_matches(tree.body,
        ':(funcid|opfuncid|aggfnoid|winfnoid|resulttype|relid) (\d+)', 'g') AS used(id)
), runs AS MATERIALIZED (
    SELECT DISTINCT r.relation, r.reading FROM reference r
    WHERE CASE WHEN r.kind OPERATOR(pg_catalog.=) 'relid' THEN FALSE
        WHEN r.kind OPERATOR(pg_catalog.=) 'resulttype' THEN r.id OPERATOR(pg_catalog.=) ANY (SELECT oid FROM bad_type)
        ELSE r.id OPERATOR(pg_catalog.=) ANY (SELECT oid FROM bad_call) END
), bad_relation AS (
    SELECT relation FROM runs WHERE reading
    UNION
    SELECT r.relation FROM bad_relation b JOIN reference r
    ON r.kind OPERATOR(pg_catalog.=) 'relid' AND r.id OPERATOR(pg_catalog.=) b.relation AND r.reading
), bad_written AS (
    SELECT relation FROM runs
    UNION
    SELECT t.tgrelid FROM pg_catalog.pg_trigger t
    WHERE t.tgfoid OPERATOR(pg_catalog.=) ANY (SELECT oid FROM bad_call)
    AND t.tgenabled OPERATOR(pg_catalog.<>) 'D'
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint c WHERE c.oid OPERATOR(pg_catalog.=) t.tgconstraint
                    AND c.contype OPERATOR(pg_catalog.=) 'f')
    UNION
    SELECT r.ev_class FROM pg_catalog.pg_rewrite r
    WHERE r.ev_type OPERATOR(pg_catalog.<>) '1' AND r.ev_class OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
    UNION
    SELECT a.attrelid FROM pg_catalog.pg_attribute a JOIN bad_type b ON b.oid OPERATOR(pg_catalog.=) a.atttypid
    UNION
    -- Partitions and children, what a deletion or a new key cascades to, and the tables behind a view.
    SELECT further.relation FROM bad_written b, LATERAL (
        SELECT i.inhparent AS relation FROM pg_catalog.pg_inherits i
        WHERE i.inhrelid OPERATOR(pg_catalog.=) b.relation
        UNION ALL
        SELECT c.confrelid FROM pg_catalog.pg_constraint c
        WHERE c.contype OPERATOR(pg_catalog.=) 'f' AND c.conrelid OPERATOR(pg_catalog.=) b.relation
        AND (c.confdeltype OPERATOR(pg_catalog.<>) 'a' OR c.confupdtype OPERATOR(pg_catalog.<>) 'a')
        UNION ALL
        SELECT r.relation FROM reference r
        WHERE r.kind OPERATOR(pg_catalog.=) 'relid' AND r.id OPERATOR(pg_catalog.=) b.relation AND r.reading
    ) further
), named AS (
    (SELECT CASE WHEN bad THEN 'volatile' ELSE 'known' END AS kind, pronamespace AS schema, proname AS name
     FROM callable WHERE prokind OPERATOR(pg_catalog.<>) 'p' GROUP BY 1, 2, 3)
    UNION ALL
    (SELECT 'attributes', f.pronamespace, f.proname FROM callable f
     JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) f.proargtypes[0]
     LEFT JOIN pg_catalog.pg_type b ON b.oid OPERATOR(pg_catalog.=) t.typbasetype
     WHERE f.bad AND f.pronargs OPERATOR(pg_catalog.-) f.pronargdefaults OPERATOR(pg_catalog.<=) 1
     AND (t.typtype OPERATOR(pg_catalog.=) ANY (ARRAY['c'::pg_catalog."char", 'p'])
          OR b.typtype OPERATOR(pg_catalog.=) 'c'
          OR EXISTS (SELECT FROM pg_catalog.pg_cast k
                     JOIN pg_catalog.pg_type s ON s.oid OPERATOR(pg_catalog.=) k.castsource
                     WHERE k.casttarget OPERATOR(pg_catalog.=) t.oid AND s.typtype OPERATOR(pg_catalog.=) 'c'
                     AND k.castcontext OPERATOR(pg_catalog.=) 'i')) GROUP BY 1, 2, 3)
    UNION ALL
    (SELECT CASE WHEN o.oprcode::pg_catalog.oid OPERATOR(pg_catalog.=) ANY (SELECT oid FROM bad_call)
                 THEN 'volatile_operators' ELSE 'known_operators' END, o.oprnamespace, o.oprname
     FROM pg_catalog.pg_operator o GROUP BY 1, 2, 3)
    UNION ALL
    (SELECT CASE WHEN t.oid OPERATOR(pg_catalog.=) ANY (SELECT oid FROM bad_type)
                 THEN 'types' ELSE 'known_types' END, t.typnamespace, t.typname
     FROM pg_catalog.pg_type t
     WHERE t.typelem OPERATOR(pg_catalog.=) 0 OR t.oid OPERATOR(pg_catalog.=) ANY (SELECT oid FROM bad_type)
     OR t.typcategory OPERATOR(pg_catalog.<>) 'A')
    UNION ALL
    (SELECT 'relations', c.relnamespace, c.relname FROM bad_relation b
     JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) b.relation
     WHERE c.relrowsecurity OR c.relkind OPERATOR(pg_catalog.=) 'v')
    UNION ALL
    (SELECT 'written', c.relnamespace, c.relname FROM bad_written b
     JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) b.relation)
    UNION ALL
    (SELECT 'unseen', 0::pg_catalog.oid, 'cast'::pg_catalog.name FROM pg_catalog.pg_cast c
     WHERE c.castcontext OPERATOR(pg_catalog.=) 'i'
     AND c.castfunc OPERATOR(pg_catalog.=) ANY (SELECT oid FROM bad_call) LIMIT 1)
    UNION ALL
    (SELECT 'unseen', 0::pg_catalog.oid, 'comparison'::pg_catalog.name WHERE EXISTS (
        SELECT FROM pg_catalog.pg_operator o
        WHERE o.oprname OPERATOR(pg_catalog.=) ANY (ARRAY['='::pg_catalog.name, '<>', '<', '<=', '>', '>='])
        AND o.oprcode::pg_catalog.oid OPERATOR(pg_catalog.=) ANY (SELECT oid FROM bad_call)
        UNION ALL
        SELECT FROM pg_catalog.pg_amproc p
        WHERE p.amproc::pg_catalog.oid OPERATOR(pg_catalog.=) ANY (SELECT oid FROM bad_call)))
), numbered AS (
    SELECT kind, schema, name, pg_catalog.row_number() OVER (PARTITION BY kind) AS number FROM named
)
SELECT kind, s.nspname AS schema, name FROM numbered
LEFT JOIN pg_catalog.pg_namespace s ON s.oid OPERATOR(pg_catalog.=) schema
WHERE number OPERATOR(pg_catalog.<=) $4::pg_catalog.int8
"""


# The latest catalogs of this process, for Routers on one database, and for one that reads its own again. Each has the
# judgements made with it, which stay warm so.
_latest: dict[tuple[object, ...], Catalog] = {}
_KEPT = 8


async def read_catalog(driver: Any, timeout: float) -> Catalog:  # noqa: ASYNC109 - each statement has its own
    """What the database of this asyncpg connection says of its names now; any role may ask, on a replica too.

    The query takes some 100 ms and answers a few hundred kilobytes; where nothing has changed since one of the latest
    readings, a tenth of it, and the answer is that reading's Catalog. Objects that are made or changed later are
    unknown, or as they were, until the next reading. `timeout` is in seconds, for each statement; BEGIN and COMMIT have
    none, so the caller bounds the whole. Raises what the driver raises.
    """
    standard = driver.get_settings().standard_conforming_strings == "on"
    # One snapshot for both: a change between them would be kept under the fingerprint of before.
    async with driver.transaction(isolation="repeatable_read", readonly=True):
        # With JIT compilation the query takes seconds.
        await driver.execute("SET LOCAL jit = off", timeout=timeout)
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
    arguments = sorted(HARMLESS), sorted(HARMLESS_IN_C), sorted(EFFECTS), MOST + 1
    found: dict[str, list[tuple[str, str]]] = {}
    for kind, schema, name in await driver.fetch(_SQL, *arguments, timeout=timeout):
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
