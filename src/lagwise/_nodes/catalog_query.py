"""The query that asks a database which of its functions, operators, types and tables run volatile code."""

# What is bad makes others bad: a function the type whose values it checks, a type the tables that have a column of it,
# a view the views over it. The query gathers these pairs, `edge`, and follows them from the volatile functions on.
# Kinds: f, a function; t, a type; d, a domain's default; r and w, a relation that is read and one that is written; a,
# that there is any bad type: built-in functions that make values of a type that they are told, $5, then make of it.
#
# Each step is a hash join or a scan, so the time grows with the number of objects, not with its square: lists of
# function numbers are unnested, since `= ANY (array)` between two tables compares each with each.
# Everything is qualified: the role's search_path may shadow any name, operators too.
SQL = r"""
WITH RECURSIVE volatile AS MATERIALIZED (
    SELECT f.oid AS id FROM pg_catalog.pg_proc f
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
), checking AS MATERIALIZED (
    -- Types that run a volatile function of their own, or of a cast to them.
    SELECT t.oid AS id FROM pg_catalog.pg_type t,
    LATERAL pg_catalog.unnest(ARRAY[t.typinput::pg_catalog.oid, t.typreceive, t.typoutput, t.typsend]) AS part(id)
    JOIN volatile v ON v.id OPERATOR(pg_catalog.=) part.id WHERE t.typtype OPERATOR(pg_catalog.<>) 'p'
    UNION
    SELECT c.casttarget FROM pg_catalog.pg_cast c JOIN volatile v ON v.id OPERATOR(pg_catalog.=) c.castfunc
), least AS MATERIALIZED (
    -- The least number of a type that may be bad: the built-in ones are where a cast to one of them is.
    SELECT CASE WHEN pg_catalog.min(id) OPERATOR(pg_catalog.<) 16384::pg_catalog.oid THEN 1::pg_catalog.oid
        ELSE 16384 END AS id FROM checking
), tree AS MATERIALIZED (
    -- The stored trees of views, policies, defaults, checks, arguments, triggers and indexes.
    SELECT 'r'::pg_catalog."char" AS kind, r.ev_class AS id, r.ev_action::pg_catalog.text AS body
    FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) r.ev_class
    WHERE c.relkind OPERATOR(pg_catalog.=) 'v' AND r.ev_type OPERATOR(pg_catalog.=) '1'
    AND c.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
    UNION ALL
    SELECT CASE WHEN p.polcmd OPERATOR(pg_catalog.=) ANY (ARRAY['r'::pg_catalog."char", '*'])
        THEN 'r'::pg_catalog."char" ELSE 'w' END, p.polrelid,
        pg_catalog.concat(p.polqual::pg_catalog.text, p.polwithcheck::pg_catalog.text)
    FROM pg_catalog.pg_policy p
    UNION ALL
    SELECT 'w', d.adrelid, d.adbin::pg_catalog.text FROM pg_catalog.pg_attrdef d
    UNION ALL
    SELECT CASE WHEN c.contypid OPERATOR(pg_catalog.=) 0 THEN 'w'::pg_catalog."char" ELSE 't' END,
        CASE WHEN c.contypid OPERATOR(pg_catalog.=) 0 THEN c.conrelid ELSE c.contypid END,
        c.conbin::pg_catalog.text
    FROM pg_catalog.pg_constraint c WHERE c.contype OPERATOR(pg_catalog.=) 'c'
    UNION ALL
    SELECT 'f', f.oid, f.proargdefaults::pg_catalog.text FROM pg_catalog.pg_proc f WHERE f.proargdefaults IS NOT NULL
    UNION ALL
    SELECT 'd', t.oid, t.typdefaultbin::pg_catalog.text FROM pg_catalog.pg_type t WHERE t.typdefaultbin IS NOT NULL
    UNION ALL
    SELECT 'w', t.tgrelid, t.tgqual::pg_catalog.text FROM pg_catalog.pg_trigger t
    WHERE t.tgqual IS NOT NULL AND t.tgenabled OPERATOR(pg_catalog.<>) 'D'
    UNION ALL
    SELECT 'w', i.indrelid, pg_catalog.concat(i.indexprs::pg_catalog.text, i.indpred::pg_catalog.text)
    FROM pg_catalog.pg_index i WHERE i.indexprs IS NOT NULL OR i.indpred IS NOT NULL
), used AS MATERIALIZED (
    -- A tree is text, {NAME :field value :field value}, and a list of types in it (o 25 16401). To split it takes a
    -- quarter of the time of a search by a regular expression. In texts of the application's spaces are escaped.
    SELECT DISTINCT
        CASE WHEN part.name OPERATOR(pg_catalog.=) 'relid' THEN 'r'::pg_catalog."char"
             WHEN part.name OPERATOR(pg_catalog.~) 'typ' THEN 't' ELSE 'f' END AS cause,
        number.digits[1]::pg_catalog.oid AS cause_id, tree.kind, tree.id
    FROM tree, LATERAL pg_catalog.unnest(pg_catalog.string_to_array(tree.body, ' :')) AS field(body),
    LATERAL pg_catalog.split_part(field.body, ' ', 1) AS part(name),
    LATERAL pg_catalog.regexp_matches(field.body, '\d+', 'g') AS number(digits)
    WHERE part.name OPERATOR(pg_catalog.=) ANY (ARRAY['funcid', 'opfuncid', 'aggfnoid', 'winfnoid', 'relid',
        'resulttype', 'funcresulttype', 'consttype', 'typid', 'funccoltypes', 'coltypes'])
), edge AS MATERIALIZED (
    SELECT cause, cause_id, kind, id FROM used
    UNION ALL
    -- What writes through a view, or past a policy, reads as well; and a view is written to the table behind it.
    SELECT DISTINCT 'r'::pg_catalog."char", id, 'w'::pg_catalog."char", id FROM tree
    WHERE kind OPERATOR(pg_catalog.=) 'r'
    UNION ALL
    SELECT 'w', cause_id, 'w', id FROM used
    WHERE cause OPERATOR(pg_catalog.=) 'r' AND kind OPERATOR(pg_catalog.=) 'r'
    UNION ALL
    -- Partitions and children, and what a deletion or a new key cascades to.
    SELECT 'w', i.inhrelid, 'w', i.inhparent FROM pg_catalog.pg_inherits i
    UNION ALL
    SELECT 'w', c.conrelid, 'w', c.confrelid FROM pg_catalog.pg_constraint c
    WHERE c.contype OPERATOR(pg_catalog.=) 'f'
    AND (c.confdeltype OPERATOR(pg_catalog.<>) 'a' OR c.confupdtype OPERATOR(pg_catalog.<>) 'a')
    UNION ALL
    SELECT 'f', t.tgfoid, 'w', t.tgrelid FROM pg_catalog.pg_trigger t
    LEFT JOIN pg_catalog.pg_constraint c ON c.oid OPERATOR(pg_catalog.=) t.tgconstraint
    WHERE t.tgenabled OPERATOR(pg_catalog.<>) 'D' AND (c.contype OPERATOR(pg_catalog.=) 'f') IS NOT TRUE
    UNION ALL
    SELECT 'f', part.id, 'f', a.aggfnoid::pg_catalog.oid FROM pg_catalog.pg_aggregate a,
    LATERAL pg_catalog.unnest(ARRAY[a.aggtransfn::pg_catalog.oid, a.aggfinalfn, a.aggcombinefn, a.aggserialfn,
        a.aggdeserialfn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn]) AS part(id)
    UNION ALL
    -- Arrays, domains, rows, ranges.
    SELECT 't', t.typelem, 't', t.oid FROM pg_catalog.pg_type t
    WHERE t.typelem OPERATOR(pg_catalog.>=) (SELECT id FROM least)
    UNION ALL
    SELECT 't', t.typbasetype, 't', t.oid FROM pg_catalog.pg_type t
    WHERE t.typbasetype OPERATOR(pg_catalog.>=) (SELECT id FROM least)
    UNION ALL
    SELECT 't', a.atttypid, 't', c.reltype
    FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) a.attrelid
    WHERE a.atttypid OPERATOR(pg_catalog.>=) (SELECT id FROM least) AND c.reltype OPERATOR(pg_catalog.<>) 0
    UNION ALL
    SELECT 't', a.atttypid, 'w', a.attrelid FROM pg_catalog.pg_attribute a
    WHERE a.atttypid OPERATOR(pg_catalog.>=) (SELECT id FROM least)
    UNION ALL
    SELECT 't', r.rngsubtype, 't', r.rngtypid FROM pg_catalog.pg_range r
    UNION ALL
    -- There are multiranges from PostgreSQL 14 on.
    SELECT 't', r.rngtypid, 't', multi.id::pg_catalog.oid FROM pg_catalog.pg_range r,
    LATERAL (SELECT pg_catalog.to_jsonb(r.*) OPERATOR(pg_catalog.->>) 'rngmultitypid') AS multi(id)
    WHERE multi.id IS NOT NULL
    UNION ALL
    SELECT 'd', a.atttypid, 'w', a.attrelid FROM pg_catalog.pg_attribute a
    JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) a.atttypid WHERE t.typdefaultbin IS NOT NULL
    UNION ALL
    SELECT 't', t.oid, 'a', 0::pg_catalog.oid FROM pg_catalog.pg_type t WHERE t.typtype OPERATOR(pg_catalog.=) 'd'
    UNION ALL
    SELECT 'a', 0::pg_catalog.oid, 'f', f.oid FROM pg_catalog.pg_proc f
    JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) f.pronamespace
    WHERE n.nspname OPERATOR(pg_catalog.=) 'pg_catalog'
    AND f.proname::pg_catalog.text OPERATOR(pg_catalog.=) ANY ($5::pg_catalog.text[])
    UNION ALL
    -- Other functions make a value of such a type of what they are given, or answer one.
    SELECT 't', part.id, 'f', f.oid FROM pg_catalog.pg_proc f,
    LATERAL pg_catalog.unnest(
        COALESCE(f.proallargtypes, f.proargtypes::pg_catalog.oid[]) OPERATOR(pg_catalog.||) f.prorettype) AS part(id)
    WHERE part.id OPERATOR(pg_catalog.>=) (SELECT id FROM least)
), bad AS (
    SELECT 'f'::pg_catalog."char" AS kind, id FROM volatile
    UNION
    SELECT 't', id FROM checking
    UNION
    SELECT 'a', 0::pg_catalog.oid FROM checking
    UNION
    SELECT 'w', r.ev_class FROM pg_catalog.pg_rewrite r
    WHERE r.ev_type OPERATOR(pg_catalog.<>) '1' AND r.ev_class OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
    UNION
    SELECT e.kind, e.id FROM bad b JOIN edge e
    ON e.cause OPERATOR(pg_catalog.=) b.kind AND e.cause_id OPERATOR(pg_catalog.=) b.id
), bad_call AS MATERIALIZED (
    SELECT id FROM bad WHERE kind OPERATOR(pg_catalog.=) 'f'
), bad_type AS MATERIALIZED (
    SELECT id FROM bad WHERE kind OPERATOR(pg_catalog.=) 't'
), callable AS MATERIALIZED (
    SELECT f.pronamespace, f.proname, f.pronargs, f.pronargdefaults, f.proargtypes, b.id IS NOT NULL AS bad
    FROM pg_catalog.pg_proc f LEFT JOIN bad_call b ON b.id OPERATOR(pg_catalog.=) f.oid
    WHERE f.prokind OPERATOR(pg_catalog.<>) 'p'
), named AS (
    (SELECT CASE WHEN bad THEN 'volatile' ELSE 'known' END AS kind, pronamespace AS schema, proname AS name
     FROM callable GROUP BY 1, 2, 3)
    UNION ALL
    (SELECT 'attributes', f.pronamespace, f.proname FROM callable f
     JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) f.proargtypes[0]
     LEFT JOIN pg_catalog.pg_type b ON b.oid OPERATOR(pg_catalog.=) t.typbasetype
     WHERE f.bad AND f.pronargs OPERATOR(pg_catalog.-) f.pronargdefaults OPERATOR(pg_catalog.<=) 1
     AND (t.typtype OPERATOR(pg_catalog.=) ANY (ARRAY['c'::pg_catalog."char", 'p'])
          OR b.typtype OPERATOR(pg_catalog.=) 'c'
          OR t.oid OPERATOR(pg_catalog.=) ANY (
              SELECT k.casttarget FROM pg_catalog.pg_cast k
              JOIN pg_catalog.pg_type s ON s.oid OPERATOR(pg_catalog.=) k.castsource
              WHERE s.typtype OPERATOR(pg_catalog.=) 'c' AND k.castcontext OPERATOR(pg_catalog.=) 'i'))
     GROUP BY 1, 2, 3)
    UNION ALL
    (SELECT CASE WHEN b.id IS NOT NULL THEN 'volatile_operators' ELSE 'known_operators' END, o.oprnamespace, o.oprname
     FROM pg_catalog.pg_operator o
     LEFT JOIN bad_call b ON b.id OPERATOR(pg_catalog.=) o.oprcode::pg_catalog.oid GROUP BY 1, 2, 3)
    UNION ALL
    (SELECT CASE WHEN b.id IS NOT NULL THEN 'types' ELSE 'known_types' END, t.typnamespace, t.typname
     FROM pg_catalog.pg_type t LEFT JOIN bad_type b ON b.id OPERATOR(pg_catalog.=) t.oid
     WHERE t.typelem OPERATOR(pg_catalog.=) 0 OR b.id IS NOT NULL OR t.typcategory OPERATOR(pg_catalog.<>) 'A')
    UNION ALL
    (SELECT CASE WHEN b.kind OPERATOR(pg_catalog.=) 'r' THEN 'relations' ELSE 'written' END, c.relnamespace, c.relname
     FROM bad b JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) b.id
     WHERE b.kind OPERATOR(pg_catalog.=) 'w'
     OR b.kind OPERATOR(pg_catalog.=) 'r' AND (c.relrowsecurity OR c.relkind OPERATOR(pg_catalog.=) 'v'))
    UNION ALL
    (SELECT 'unseen', 0::pg_catalog.oid, 'cast'::pg_catalog.name FROM pg_catalog.pg_cast c
     JOIN bad_call b ON b.id OPERATOR(pg_catalog.=) c.castfunc
     WHERE c.castcontext OPERATOR(pg_catalog.=) 'i' LIMIT 1)
    UNION ALL
    (SELECT 'unseen', 0::pg_catalog.oid, 'comparison'::pg_catalog.name WHERE EXISTS (
        SELECT FROM pg_catalog.pg_operator o
        JOIN bad_call b ON b.id OPERATOR(pg_catalog.=) o.oprcode::pg_catalog.oid
        WHERE o.oprname OPERATOR(pg_catalog.=) ANY (ARRAY['='::pg_catalog.name, '<>', '<', '<=', '>', '>='])
        UNION ALL
        SELECT FROM pg_catalog.pg_amproc p JOIN bad_call b ON b.id OPERATOR(pg_catalog.=) p.amproc::pg_catalog.oid))
), numbered AS (
    SELECT kind, schema, name, pg_catalog.row_number() OVER (PARTITION BY kind) AS number FROM named
)
SELECT kind, s.nspname AS schema, name FROM numbered
LEFT JOIN pg_catalog.pg_namespace s ON s.oid OPERATOR(pg_catalog.=) schema
WHERE number OPERATOR(pg_catalog.<=) $4::pg_catalog.int8
"""
