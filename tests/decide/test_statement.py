"""What `effects_of` promises, without a server: NOTHING only of what leaves nothing behind on its connection."""

from __future__ import annotations

import doctest
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import (
    ARRAY,
    ClauseElement,
    Date,
    Float,
    ForeignKey,
    Integer,
    Numeric,
    String,
    Time,
    and_,
    any_,
    bindparam,
    case,
    cast,
    column,
    delete,
    distinct,
    exists,
    extract,
    false,
    func,
    insert,
    lateral,
    literal,
    not_,
    null,
    or_,
    select,
    text,
    true,
    tuple_,
    type_coerce,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import asyncpg
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    aliased,
    defer,
    joinedload,
    load_only,
    mapped_column,
    relationship,
    selectinload,
    with_loader_criteria,
)

import lagwise._decide.catalog
import lagwise._decide.parse
import lagwise._decide.statement
from lagwise._decide import parse
from lagwise._decide.catalog import BUILT_IN, KEPT, Catalog, Names
from lagwise._decide.effect import Effect
from lagwise._decide.statement import effects_of
from tests.kit import parser
from tests.kit.counting import instructions


class Base(DeclarativeBase):
    pass


class Owner(Base):
    __tablename__ = "owner"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(30))
    items: Mapped[list[Item]] = relationship(back_populates="owner")


class Item(Base):
    __tablename__ = "Item"  # a name that must be quoted
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    price: Mapped[float] = mapped_column(Numeric(10, 2))
    owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"))
    owner: Mapped[Owner] = relationship(back_populates="items")


def compiled(statement: ClauseElement) -> str:
    """The text the driver is given, IN lists expanded."""
    make: Any = asyncpg.dialect  # untyped
    return str(statement.compile(dialect=make(), compile_kwargs={"render_postcompile": True}))


def queries() -> Iterator[tuple[str, ClauseElement]]:
    """What applications ask day in, day out, each of which must cost one round trip."""
    item, owner = Item, Owner
    other = aliased(Item)
    cheap = select(item.id, item.owner_id).where(item.price < 5).cte("cheap")
    tree = select(item.id, literal(1).label("depth")).where(item.id == 1).cte("tree", recursive=True)
    tree = tree.union_all(select(item.id, tree.c.depth + 1).where(item.owner_id == tree.c.id))
    ranked = select(item, func.row_number().over(partition_by=item.owner_id, order_by=item.price.desc()).label("place"))
    newest = select(item.name).where(item.owner_id == owner.id).limit(1)
    yield "get", select(item).where(item.id == 7)
    yield "columns", select(item.id, item.name.label("called"), literal(1), null(), true())
    yield "joins", select(item).join(item.owner).outerjoin(other, other.id == item.id).where(owner.name == "x")
    yield "join on several", select(item).join(owner, and_(owner.id == item.owner_id, owner.name == "x"))
    yield "joinedload", select(item).options(joinedload(item.owner))
    yield "joinedload many, limited", select(owner).options(joinedload(owner.items)).limit(10)
    yield "selectinload", select(owner).options(selectinload(owner.items))
    yield "load_only", select(item).options(load_only(item.id), defer(item.name, raiseload=True))
    yield "loader criteria", select(item).options(with_loader_criteria(item, item.price > 0))
    yield "order, limit, offset", select(item).order_by(item.name.desc().nulls_last()).limit(10).offset(20)
    yield "count", select(func.count()).select_from(item)
    yield "count distinct", select(func.count(distinct(item.name)), func.sum(item.price), func.max(item.id))
    yield (
        "group by, having",
        select(item.owner_id, func.avg(item.price)).group_by(item.owner_id).having(func.count() > 1),
    )
    yield "filter", select(func.count(item.id).filter(item.price > 3))
    yield "coalesce", select(func.coalesce(item.name, "nobody"), func.nullif(item.price, 0))
    yield "in_", select(item).where(item.id.in_([1, 2, 3]), item.name.not_in(["a", "b"]))
    yield "in_ nothing", select(item).where(item.id.in_([]))
    yield "in_ subquery", select(item).where(item.owner_id.in_(select(owner.id).where(owner.name == "x")))
    yield "tuple in", select(item).where(tuple_(item.id, item.name).in_([(1, "a"), (2, "b")]))
    yield "any", select(item).where(item.id == any_(bindparam("ids", [1, 2], type_=ARRAY(Integer))))
    yield "and, or, not", select(item).where(or_(item.id == 1, and_(item.id > 5, not_(or_(item.id == 7, false())))))
    yield (
        "between, like, is",
        select(item).where(
            item.id.between(1, 9), item.name.ilike("%x%"), item.name.startswith("x"), item.name.is_not(None)
        ),
    )
    yield "arithmetic", select((item.price * (item.id + 1)) / 2, -(item.price + 1), item.id % 3)
    yield "concatenation", select(item.name + "x", func.lower(func.trim(item.name)), func.length(item.name))
    yield "case", select(case((item.price > 5, "dear"), (item.price > (item.id + 1), "odd"), else_="cheap"))
    yield "cast", select(cast(item.id, String(20)), cast(item.name, Numeric(10, 2)), cast(item.id, Float(53)))
    yield "type_coerce", select(type_coerce(item.name, String(9)), cast(item.name, Date), cast(item.name, Time))
    yield "now", select(func.now(), func.current_timestamp(), func.date_trunc("day", func.now()))
    yield "extract", select(extract("year", func.now()))
    yield "exists", select(exists().where(item.id == 1))
    yield "exists correlated", select(owner).where(owner.items.any(item.price > 5), ~owner.items.any())
    yield "has", select(item).where(item.owner.has(name="x"))
    yield "cte", select(cheap.c.id).join(owner, owner.id == cheap.c.owner_id)
    yield "recursive cte", select(tree.c.id, tree.c.depth)
    yield "recursive cte, joined", select(item).join(tree, tree.c.id == item.id)
    yield "cte materialized", select(select(item.id).cte("m").prefix_with("MATERIALIZED", dialect="postgresql"))
    yield "subquery", select(select(item.id, item.price).where(item.price > 1).subquery("dear"))
    yield "scalar subquery", select(owner.name, newest.scalar_subquery())
    yield "lateral", select(owner.name, lateral(newest).c.name)
    yield "window", select(ranked.subquery().c.place)
    yield (
        "windows",
        select(
            func.rank().over(order_by=item.price),
            func.lag(item.price).over(order_by=item.id),
            func.sum(item.price).over(rows=(None, 0), order_by=item.id),
        ),
    )
    yield "within group", select(func.percentile_cont(0.5).within_group(item.price))
    yield "aggregates", select(func.array_agg(item.id), func.string_agg(item.name, ","), func.json_agg(item.name))
    yield "json", select(func.jsonb_build_object("id", item.id), func.row_to_json(text("t")))
    yield "full text", select(item).where(func.to_tsvector(item.name).op("@@")(func.plainto_tsquery("x")))
    yield "series", select(func.generate_series(1, 10).alias("n"))
    yield "unnest", select(func.unnest(bindparam("ids", [1], type_=ARRAY(Integer))).label("id"))
    yield "distinct", select(item.owner_id).distinct()
    yield "quoted label", select(item.name.label("Name of the item"))
    yield "ping", select(1)


QUERIES = dict(queries())
NOTHING, TOUCHES, TRANSACTION, OPAQUE = Effect.NOTHING, Effect.TOUCHES, Effect.TRANSACTION, Effect.OPAQUE
LIFTS, WRITES, UNKNOWN = Effect.LIFTS, Effect.WRITES, Effect.UNKNOWN
UNSEEN = OPAQUE


@pytest.mark.parametrize("name", QUERIES)
def test_ordinary_queries_cost_one_round_trip(name: str) -> None:
    """What the ORM and Core make of a query is recognised: its connection needs no reset."""
    sql = compiled(QUERIES[name])
    assert effects_of(sql) == NOTHING, sql


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "select count(*) from item",
        "  \n\tSELECT lower(name) FROM item",
        "SELECT(1)",
        "SELECT pg_catalog.lower(name) FROM item",
        "SELECT LOWER (name), Count\n(*) FROM item GROUP BY (1)",
        "WITH cheap AS (SELECT 1) SELECT * FROM cheap",
        "with a as materialized (select 1) select * from a",
        "SELECT DISTINCT ON (owner_id) id FROM item ORDER BY owner_id",
        "SELECT current_setting('search_path'), pg_is_in_recovery(), pg_backend_pid()",
        "SELECT * FROM item WHERE name = $1 AND id IN ($2, $3) AND price > ($4)::NUMERIC(10, 2)",
        "SELECT * FROM item /*route='/items',traceparent='00-af-01'*/",
        "/*+ SeqScan(item) */ SELECT * FROM item -- set_config('a', 'b', false)",
        "SELECT 'é', 'set_config(1)', $$; SET x = 1$$ FROM \"größe\" AS ß",
        "SELECT 1;",
        "SELECT 1; SELECT 2",
        "VALUES (1, lower('A'))",
        "TABLE item",
        "SHOW search_path",
        "EXPLAIN DELETE FROM item",
        "EXPLAIN ANALYZE SELECT 1",
        "COPY (SELECT * FROM item) TO STDOUT",
        "COPY item TO STDOUT",
        "SELECT random(), clock_timestamp(), gen_random_uuid(), timeofday(), txid_current_snapshot()",
        "SELECT filter, over, values FROM item",
        "FETCH 10 FROM c",
        "",
        "   ",
    ],
)
def test_queries_in_text_leave_nothing(sql: str) -> None:
    """So is the same by `text()`: comments, letters beyond ASCII and words that look like calls are no suspicion."""
    assert effects_of(sql) == NOTHING


HIDDEN = [
    "SELECT set_config('search_path', 'tenant', false)",
    "select SET_CONFIG ('search_path', 'tenant', false)",
    "SELECT\nset_config\n\t(\n'search_path', 'tenant', false)",
    "SELECT pg_catalog.set_config('search_path', 'tenant', false)",
    "SELECT \"set_config\"('search_path', 'tenant', false)",
    "SELECT pg_catalog.\"set_config\" ('search_path', 'tenant', false)",
    "SELECT \"pg_catalog\".\"set_config\"('search_path', 'tenant', false)",
    "SELECT U&\"set\\005fconfig\"('search_path', 'tenant', false)",
    "SELECT U&\"set!005fconfig\" UESCAPE '!' ('search_path', 'tenant', false)",
    "SELECT u&\"set!005fconfig\"\nuEsCaPe '!'('search_path', 'tenant', false)",
    "SELECT set_config/* hidden */('search_path', 'tenant', false)",
    "SELECT set_config -- hidden\n('search_path', 'tenant', false)",
    "SELECT /**/ set_config('search_path', 'tenant', false)",
    "SELECT 1 FROM (SELECT set_config('search_path', 'tenant', false)) AS hidden",
    "SELECT 1 WHERE set_config('search_path', 'tenant', false) = 'tenant'",
    "WITH hidden AS (SELECT set_config('search_path', 'tenant', false)) SELECT * FROM hidden",
    "WITH hidden AS MATERIALIZED (SELECT pg_advisory_lock(1)) SELECT 1 FROM hidden",
    "SELECT * FROM set_config('search_path', 'tenant', false)",
    "SELECT * FROM generate_series(1, 2), LATERAL set_config('search_path', 'tenant', false)",
    "SELECT count(*) FILTER (WHERE set_config('search_path', 'tenant', false) = '') FROM item",
    "SELECT coalesce(NULL, set_config('search_path', 'tenant', false))",
    "SELECT 'lower(' || set_config('search_path', 'tenant', false)",
    "SELECT $$lower($$ || set_config('search_path', 'tenant', false)",
    "EXPLAIN SELECT set_config('search_path', 'tenant', false)",
    "EXPLAIN ANALYZE SELECT set_config('search_path', 'tenant', false)",
    "COPY (SELECT set_config('search_path', 'tenant', false)) TO STDOUT",
    "VALUES (set_config('search_path', 'tenant', false))",
    "(SELECT set_config('search_path', 'tenant', false))",
    "SELECT 1; SET search_path = tenant",
    "SELECT pg_advisory_lock(1)",
    "SELECT pg_advisory_lock_shared(1, 2)",
    "SELECT pg_try_advisory_lock($1::BIGINT)",
    "SELECT pg_advisory_unlock_all()",
    "SET search_path = tenant",
    "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "SET ROLE tenant",
    "SET SESSION AUTHORIZATION tenant",
    "SET TIME ZONE 'UTC'",
    "SET default_transaction_read_only = on",
    "SELECT set_config('default_transaction_read_only', 'on', false)",
    "PREPARE p AS SELECT 1",
    "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
    "LISTEN channel",
    "UNLISTEN *",
    "DISCARD TEMP",
    "/* SELECT */ SET search_path = tenant",
    "-- SELECT\nSET search_path = tenant",
]


@pytest.mark.parametrize("sql", HIDDEN)
def test_what_may_outlive_its_session_touches(sql: str) -> None:
    """Settings, locks, prepared statements, cursors, however they are spelled and wherever they stand: just that."""
    assert effects_of(sql) == TOUCHES


OTHERS = {
    "SELECT become_tenant(7)": UNSEEN | UNKNOWN,
    "SELECT become_tenant(values) FROM metric": UNSEEN | UNKNOWN,
    "SELECT lower(values(1))": UNSEEN,  # no PostgreSQL reads this
    "SELECT * FROM records(7) AS (values text)": UNSEEN | UNKNOWN,
    "SELECT become_tenant(values$1x) FROM (SELECT 'red' AS values$1x) AS t": UNSEEN | UNKNOWN,
    "SELECT app.become_tenant(7)": UNSEEN | UNKNOWN,
    "SELECT app.lower('x')": UNSEEN | UNKNOWN,
    "SELECT app\n.\tlower\n('x')": UNSEEN | UNKNOWN,
    "SELECT \"App\" . lower('x')": UNSEEN | UNKNOWN,
    "SELECT \"pg_catalog.lower\"('x')": UNSEEN | UNKNOWN,
    "SELECT \"lower \"('x')": UNSEEN | UNKNOWN,
    "SELECT \"LOWER\"('x')": UNSEEN | UNKNOWN,
    "SELECT \u00e9lower('x')": UNSEEN | UNKNOWN,
    "SELECT \U0001f600count('x')": UNSEEN | UNKNOWN,
    "SELECT ran\u212a('x')": UNSEEN | UNKNOWN,
    "SELECT app.count(*)": UNSEEN | UNKNOWN,
    "SELECT lower2('x'), _lower('x'), lower$('x')": UNSEEN | UNKNOWN,
    "WITH a AS (SELECT 1) SELECT a('x')": UNSEEN | UNKNOWN,
    "SELECT partition('x')": UNSEEN | UNKNOWN,
    "SELECT 'x'::tenant": UNSEEN | UNKNOWN,
    "SELECT CAST(ARRAY['x'] AS app.tenant[])": UNSEEN | UNKNOWN,
    "SELECT 1 !> 2": UNSEEN | UNKNOWN,
    "SELECT 1 OPERATOR(app.+) 2": UNSEEN | UNKNOWN,
    "SELECT json_value(a, '$.b' RETURNING tenant) FROM item": UNSEEN | UNKNOWN,
    "SELECT query_to_xml('SELECT set_config(''a.b'', ''c'', false)', true, true, '')": UNSEEN | UNKNOWN,
    "SELECT table_to_xml('view_that_calls', true, true, '')": UNSEEN,
    "SELECT dblink_connect('name', 'dbname=x')": UNSEEN | UNKNOWN,
    "SELECT lo_open(1, 1)": UNSEEN | UNKNOWN,
    "EXECUTE p": UNSEEN,
    "EXPLAIN SELECT ('{x}'::tenant[])[1]": UNSEEN | UNKNOWN,  # planning folds it, which runs the domain's CHECK
    "LOAD 'auto_explain'": UNSEEN,
    "DO $$ BEGIN PERFORM set_config('search_path', 'tenant', false); END $$": UNSEEN,
    "CALL become_tenant(7)": UNSEEN,
    "SELECTED": UNSEEN,
    "SELECT ((1)": UNSEEN,
    "SELECT 1\0; SET search_path = tenant": UNSEEN,
    "SELECT '\ud800'": UNSEEN,
    "SELECT setseed(0.5)": TOUCHES | Effect.SPOILS,
    "DEALLOCATE p": TOUCHES | Effect.SPOILS,
    "DISCARD PLANS": TOUCHES | Effect.SPOILS,
    "DISCARD ALL": TOUCHES | Effect.SPOILS | LIFTS | Effect.RESETS,
    "RESET ALL": TOUCHES | Effect.RESETS,
    "BEGIN": Effect.BEGINS,
    "START TRANSACTION READ ONLY": Effect.BEGINS,
    "BEGIN READ WRITE": Effect.BEGINS | LIFTS,
    "BEGIN ISOLATION LEVEL SERIALIZABLE, READ WRITE": Effect.BEGINS | LIFTS,
    "COMMIT": Effect.ENDS,
    "END": Effect.ENDS,
    "ROLLBACK": Effect.ENDS,
    "ABORT": Effect.ENDS,
    "PREPARE TRANSACTION 'x'": Effect.ENDS,
    "COMMIT PREPARED 'x'": Effect.ENDS,
    "SELECT 1; COMMIT": Effect.ENDS,
    "SAVEPOINT a": TRANSACTION,
    "ROLLBACK TO a": TRANSACTION,
    "RELEASE a": TRANSACTION,
    "LOCK TABLE item": TRANSACTION,
    "SET CONSTRAINTS ALL DEFERRED": TRANSACTION,
    "DECLARE c CURSOR FOR SELECT 1": TRANSACTION,
    "SET LOCAL search_path = tenant": TRANSACTION,
    "SET LOCAL ROLE tenant": TRANSACTION,
    "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE": TRANSACTION,
    "SET TRANSACTION READ ONLY": TRANSACTION,
    "SET TRANSACTION READ WRITE": TRANSACTION | LIFTS,
    "SET transaction_read_only = off": TRANSACTION | LIFTS,
    "SET transaction_read_only = on": TRANSACTION,
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE": TOUCHES | LIFTS,
    "SET default_transaction_read_only = off": TOUCHES | LIFTS,
    "SET \"Default_Transaction_Read_Only\" TO 'FALSE'": TOUCHES | LIFTS,
    "SET default_transaction_read_only TO DEFAULT": TOUCHES | LIFTS,
    "RESET default_transaction_read_only": TOUCHES | LIFTS,
    "SET LOCAL default_transaction_read_only = 0": TRANSACTION | LIFTS,
    "SET standard_conforming_strings = off": TOUCHES | LIFTS,
    "SELECT set_config('app.tenant', $1::VARCHAR, true)": TRANSACTION,
    "SELECT set_config('app.tenant', $1::VARCHAR, $2::BOOLEAN)": TRANSACTION | TOUCHES,
    "SELECT set_config($1::VARCHAR, $2::VARCHAR, $3::BOOLEAN)": UNSEEN | TRANSACTION | TOUCHES,
    "SELECT set_config('default_' || 'transaction_read_only', 'off', false)": UNSEEN | TRANSACTION | TOUCHES,
    "SELECT set_config('transaction_read_only__'::varchar(21), 'off', false)": UNSEEN | TRANSACTION | TOUCHES,
    "SELECT set_config(setting_name => 'a.b', new_value => 'c', is_local => false)": UNSEEN | TRANSACTION | TOUCHES,
    "SELECT set_config('Transaction_Read_Only', 'off', false)": TOUCHES | LIFTS,
    "SELECT set_config('default_transaction_read_only', $1, true)": TRANSACTION | LIFTS,
    "SELECT set_config(U&'default\\005ftransaction_read_only'::text, 'off', false)": TOUCHES | LIFTS,
    "SELECT set_config(values, 'red', false) FROM (SELECT 'search_path' AS values) AS t": UNSEEN
    | TRANSACTION
    | TOUCHES,
    "SELECT pg_advisory_xact_lock(1)": TRANSACTION,
    "SELECT pg_try_advisory_xact_lock_shared(1, 2)": TRANSACTION,
    "SELECT pg_export_snapshot()": TRANSACTION,
    "UPDATE pg_settings SET setting = 'off' WHERE name = $1": UNSEEN | LIFTS | WRITES,
    "INSERT INTO item VALUES (1)": WRITES,
    "UPDATE item SET name = upper(name)": WRITES,
    "DELETE FROM item": WRITES,
    "MERGE INTO item USING new ON item.id = new.id WHEN MATCHED THEN DELETE": WRITES,
    "WITH gone AS (DELETE FROM item RETURNING id) SELECT * FROM gone": WRITES,
    "EXPLAIN ANALYZE DELETE FROM item": WRITES,
    "EXPLAIN DELETE FROM item": NOTHING,
    "SELECT * FROM item FOR UPDATE": WRITES,
    "SELECT setval('item_id_seq', 7)": WRITES,
    "COPY item FROM STDIN": WRITES,
    "INSERT INTO item VALUES (1) ON CONFLICT (id) DO UPDATE SET name = become(1)": WRITES | UNSEEN | UNKNOWN,
    "COPY item FROM STDIN WHERE become(id)": WRITES | UNSEEN | UNKNOWN,
    "COPY item TO PROGRAM 'x'": WRITES | UNSEEN,
    "SELECT 1 INTO TEMP t": WRITES | TOUCHES,
    "SELECT 1 UNION SELECT 2 INTO t": WRITES | UNSEEN,
    "CREATE TEMP TABLE t (id int)": WRITES | UNSEEN | TOUCHES,
    "CREATE TEMP TABLE t (id int) ON COMMIT DROP": WRITES | UNSEEN,
    "CREATE TEMP VIEW t AS SELECT 1": WRITES | UNSEEN | TOUCHES,
    "CREATE TEMP SEQUENCE t": WRITES | UNSEEN | TOUCHES,
    "CREATE TEMP TABLE t AS SELECT 1": WRITES | UNSEEN | TOUCHES,
    "CREATE TEMP TABLE t ON COMMIT DROP AS SELECT 1": WRITES | UNSEEN,
    "CREATE TABLE t (id int)": WRITES | UNSEEN,
    "NOTIFY channel": WRITES,
    "SELECT pg_notify('channel', 'text')": WRITES,
    "CREATE TABLE t AS EXECUTE p": WRITES | UNSEEN,
}


@pytest.mark.parametrize("sql", OTHERS)
def test_every_kind_of_effect_is_told(sql: str) -> None:
    """What runs unseen, means something only in a transaction, lifts the fence, begins, ends, spoils or writes."""
    assert effects_of(sql) == OTHERS[sql]


@pytest.mark.parametrize(
    "statement",
    [
        select(func.set_config("search_path", "tenant", false())),
        select(Item).where(func.set_config("search_path", "tenant", false()) == "tenant"),
        select(func.pg_advisory_lock(1)),
        select(func.pg_try_advisory_xact_lock(1)),
        select(func.app.lower("x")),
        select(func.App.lower("x")),
        select(func.App.Lower("x")),
        select(func.become_tenant(7)),
        select(func.lower(func.become_tenant(7))),
        select(select(func.become_tenant(7)).cte("hidden")),
        select(func.become_tenant(7).table_valued("id")),
        select(func.my_rank(7).over(order_by=column("x"))),
        union_all(select(literal("1")), select(func.become_tenant(7))),
        select(Item).order_by(func.become_tenant(Item.id)),
        insert(Item).values(name="x"),
        update(Item).values(name="x").where(Item.id == 1),
        delete(Item).where(Item.id == 1),
        text("SET search_path = tenant"),
        text("PREPARE p AS SELECT 1"),
    ],
    ids=lambda statement: compiled(statement)[:40],
)
def test_what_sqlalchemy_makes_of_such_calls_is_seen(statement: ClauseElement) -> None:
    """The same by `func.` and `text()`, wherever in the statement the call stands."""
    assert effects_of(compiled(statement)) != NOTHING


@given(
    st.sampled_from(["set_config", "pg_advisory_lock", "become_tenant", "lower2", "x"]),
    st.text(" \t\n\r\f\v", max_size=4),
    st.sampled_from(["", "pg_catalog.", "app.", "a.b.", '"app".']),
    st.sampled_from(["SELECT {}1)", "SELECT 1 + {}1)", "SELECT (lower({}1)))", "WITH x AS (SELECT {}1)) SELECT 1",
                     "SELECT lower('a'), {}1), count(*)", "SELECT NOT {}1)", "SELECT -{}1)", "SELECT ','||{}1)"]),
    st.booleans(),
)  # fmt: skip
def test_an_unknown_function_is_found_wherever_it_is_called(
    name: str, space: str, schema: str, place: str, upper: bool
) -> None:
    """Any white space before the parenthesis, any schema, any place, any case."""
    call = f"{schema}{name}{space}("
    assert effects_of(place.format(call.upper() if upper else call)) != NOTHING


@given(st.text(max_size=80))
def test_any_text_has_an_answer(sql: str) -> None:
    """Never an exception, and NOTHING only of what PostgreSQL reads as SQL."""
    effect = effects_of(sql)
    assert isinstance(effect, Effect)
    if parse.parse(sql) is None:
        assert effect == UNSEEN


@given(st.text("selctwith SELCTWITH_1(.)\"'", max_size=12).map(lambda beginning: beginning + " set_config('a','b')"))
def test_no_beginning_hides_a_call(sql: str) -> None:
    """Whatever stands in front of set_config and its parenthesis, they are seen, unless they are part of a literal."""
    if effects_of(sql) == NOTHING:
        assert sql.count("'") % 2 or sql.count('"')


def known(**fields: Any) -> Catalog:
    """A catalog that knows what is built in, and this."""
    return Catalog(
        **{
            "known": Names([("pg_catalog", "lower"), ("public", "near"), ("public", "lower")]),
            "known_operators": Names([("pg_catalog", "=")]),
            "known_types": Names([("pg_catalog", "text"), ("public", "mood")]),
            **fields,
        }
    )


def test_the_catalog_clears_what_it_calls_harmless() -> None:
    """Functions declared IMMUTABLE or STABLE, and the application's types, are one round trip like any other query."""
    assert effects_of("SELECT near(1), public.near(1), 'x'::mood FROM item", known()) == NOTHING
    assert effects_of("SELECT near(1)") == UNSEEN | UNKNOWN


def test_an_unqualified_name_counts_as_the_worst_it_may_mean() -> None:
    """A function of the application's may come before the built-in one in the search_path: the worse of both counts."""
    shadowed = known(volatile=Names([("app", "lower"), ("app", "set_config")]))
    assert effects_of("SELECT lower('x')", shadowed) == UNSEEN
    assert effects_of("SELECT pg_catalog.lower('x')", shadowed) == NOTHING
    assert effects_of("SELECT public.lower('x')", shadowed) == NOTHING
    assert effects_of("SELECT set_config('a.b', 'c', true)", shadowed) == UNSEEN
    assert effects_of("SELECT pg_catalog.set_config('a.b', 'c', true)", shadowed) == TRANSACTION


def test_calls_that_no_text_shows_as_calls_are_seen() -> None:
    """`row.name`, casts, operators, views, row security and what a write sets off are looked up as well."""
    catalog = known(
        attributes=frozenset({"enter"}),
        types=Names([("public", "tenant")]),
        volatile_operators=Names([("public", "!>"), ("app", "=")]),
        relations=Names([("public", "entered")]),
        written=Names([("public", "watched")]),
    )
    for sql in (
        "SELECT m.enter FROM metric AS m",
        "SELECT (m).enter FROM metric AS m",
        "SELECT ((m).a).enter.b FROM metric AS m",
        "SELECT 'x'::tenant",
        "SELECT tenant('x')",
        "SELECT * FROM x() AS (a tenant)",
        "SELECT '{}'::public.tenant[]",
        "SELECT json_populate_record(m, $1) FROM metric AS m",
        "SELECT name !> 'x' FROM metric",
        "SELECT name IN ('x') FROM metric",
        "SELECT name = ANY (SELECT 'x') FROM metric",
        "SELECT * FROM entered",
        "SELECT * FROM public.entered",
        "WITH a AS (SELECT 1 FROM metric JOIN entered ON true) SELECT 1",
        "COPY entered TO STDOUT",
        "INSERT INTO watched VALUES (1)",
        "COPY watched FROM STDIN",
        "WITH a AS (INSERT INTO watched VALUES (1) RETURNING id) SELECT 1",
    ):
        assert OPAQUE in effects_of(sql, catalog), sql
    for sql in (
        "SELECT enter FROM metric",
        "SELECT m.name FROM metric AS m",
        "SELECT * FROM app.entered",
        "SELECT * FROM watched",
        "SELECT name OPERATOR(pg_catalog.=) 'x'::text FROM metric",
    ):
        assert effects_of(sql, catalog) == NOTHING, sql


def test_a_literal_without_a_type_may_become_a_value_of_any() -> None:
    """Where making values of some type runs code, so may a literal, a bare parameter, and what must agree on a type."""
    catalog = known(types=Names([("public", "tenant")]), known_operators=Names([("pg_catalog", "=")]))
    for sql in (
        "SELECT id FROM metric WHERE tags = '{red}'",
        "SELECT id FROM metric WHERE tags = $1",
        "SELECT lower(NULL) FROM metric",
        "SELECT id FROM metric WHERE tags IN ($1::text[], '{red}')",
        "SELECT id FROM metric WHERE id = 1::text::int AND tags = ('{red}')",
        "SELECT coalesce(tags, names) FROM metric",
        "SELECT greatest(tags, names) FROM metric",
        "SELECT ARRAY[tags, names] FROM metric",
        "SELECT CASE WHEN id = 1 THEN tags ELSE names END FROM metric",
        "SELECT tags FROM metric UNION ALL SELECT names FROM metric",
        "SELECT * FROM (VALUES (1), (2)) AS v",
        "EXPLAIN SELECT id FROM metric WHERE tags = '{red}'",
    ):
        assert OPAQUE in effects_of(sql, catalog), sql
        assert OPAQUE not in effects_of(sql, known(known_types=Names([("pg_catalog", "int4"), ("x", "text")]))), sql
    for sql in (
        "SELECT id FROM metric WHERE id = 1 AND name = 'x'::text AND name = $1::text",
        "SELECT CASE WHEN id = 1 THEN tags END FROM metric WHERE tags IS NULL",
    ):
        assert effects_of(sql, catalog) == NOTHING, sql


def test_what_no_name_shows_makes_every_query_opaque() -> None:
    """With a volatile implicit cast, or a volatile comparison, no query is harmless."""
    assert effects_of("SELECT 1", known(unseen=True)) == UNSEEN


def test_a_backslash_is_not_read_where_the_server_may_read_it_otherwise() -> None:
    r"""With `standard_conforming_strings = off`, `'\'` goes on after its second quote."""
    sql = r"SELECT '\', set_config('search_path', 'tenant', false), '"
    assert effects_of(sql, known(standard_strings=False)) == UNSEEN
    assert effects_of("SELECT 'x'", known(standard_strings=False)) == NOTHING


def executed(call: Any) -> int:
    """The bytecode instructions that a call executes, in Python."""
    with instructions() as counted:
        call()
    return counted[0]


def test_what_was_judged_costs_one_look() -> None:
    """The second time, a statement is looked up in one dictionary."""
    sql = "SELECT 1 AS asked_again"
    effects_of(sql)
    assert executed(lambda: effects_of(sql)) <= 30


LONG = {
    "a literal": ("SELECT 1 WHERE digest = '\\x", "de", "'"),
    "parentheses": ("SELECT ", "(", "1"),
    "parentheses, closed": ("SELECT (", "(1)+(", "1))"),
    "names": ("SELECT ", "a.", "b"),
    "operators": ("SELECT 1", "+", "1"),
    "operators of two": ("SELECT 1", "+-", "1"),
    "sums": ("SELECT 1", "+1", ""),
    "casts": ("SELECT 1", "::a", ""),
    "calls": ("SELECT ", "f(", "1"),
    "nested comments": ("SELECT 1", "/*", ""),
    "nested comments, closed": ("SELECT 1 /*", "/**/", "*/"),
    "quotes": ("SELECT ", "'", ""),
    "dollars": ("SELECT ", "$a", "$"),
    "parameters": ("SELECT 1 WHERE id IN (", "$1, ", "$2)"),
    "typed parameters": ("SELECT 1 WHERE id IN (", "$1::INTEGER, ", "$2::INTEGER)"),
    "parameters of many types": ("SELECT 1 WHERE id IN (", "$1::INTEGER, $2::DATE, ", "$2::INTEGER)"),
    "statements": ("", "SELECT 1;", ""),
    "NOT": ("SELECT ", "NOT ", "true"),
    "white space": ("SELECT", " \n", "1"),
}


@pytest.mark.parametrize("kind", LONG)
def test_judging_is_linear_in_the_length_of_the_text(kind: str) -> None:
    """A megabyte of anything costs at most a small multiple of what an eighth of it costs, and never much."""
    start, middle, end = LONG[kind]

    def cost(size: int) -> float:
        best = float("inf")
        for attempt in range(3):
            sql = f"{start}{middle * (size // len(middle))}{end} -- {attempt}"
            began = time.thread_time()
            effects_of(sql, known())
            best = min(best, time.thread_time() - began)
        return best

    small, large = cost(1 << 17), cost(1 << 20)
    assert large <= 24 * max(small, 0.002)


@pytest.mark.parametrize("unit", ["+1", "::a", " ISNULL", " UNION SELECT 1", " COLLATE a", " JOIN a ON b"])
def test_depth_does_not_overflow_the_stack(unit: str) -> None:
    """The parser recurses in C: as deep as a text of the longest kind goes, in a thread with little stack."""
    head = "SELECT 1 FROM a" if "JOIN" in unit else "SELECT 1"
    found: list[Effect] = []
    before = threading.stack_size(1 << 20)
    try:
        thread = threading.Thread(
            target=lambda: found.extend(
                effects_of(head + unit * ((length - len(head)) // len(unit))) for length in (parse.LIMIT, 2_048)
            )
        )
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    assert len(found) == 2


def test_rulers_and_boxes_in_comments_are_read() -> None:
    """What people draw in comments is no run of operators that the scanner would read again and again."""
    for drawn in ("-" * 90, "--" + "=" * 90, "/" + "*" * 90 + "/", "/*" + "#" * 90 + "*/"):
        assert effects_of(f"SELECT 1 {drawn}\n") == NOTHING, drawn


def test_lists_of_parameters_are_judged_as_one() -> None:
    """Thousands of ids in an IN list are one round trip still, and take one place in memory however many there are."""
    catalog = known(known_types=Names([("pg_catalog", "int4")]), known_operators=Names([("pg_catalog", "=")]))
    for count in (3_000, 4_000, 5_000):
        ids = ", ".join(f"${n}::INTEGER" for n in range(1, count))
        assert effects_of(f"SELECT name FROM item WHERE id IN ({ids}) AND x = ${count}", catalog) == NOTHING
    assert catalog.judged.held() < 1_000
    hidden = "SELECT name FROM item WHERE id IN (" + "$1::INTEGER, " * 3_000 + "set_config('a.b', 'c', false))"
    assert effects_of(hidden, catalog) == TOUCHES


@given(
    st.lists(
        st.sampled_from(["$1", ", ", "$2::INTEGER", "$$", "$a$", "$a", ")", "(", "'", "set_config", " ", "::INTEGER",
                         "1", "--", "\n", "/*", "*/", '"', "a", "U&", "E", "\\", ", $3::INTEGER"]),
        max_size=30,
    ).map("".join)
)  # fmt: skip
def test_folding_hides_nothing(sql: str) -> None:
    """A text whose lists are folded calls the same functions as before."""

    def names(text: str) -> set[str] | None:
        tree = parse.parse(text)
        return None if tree is None else {part for part in repr(tree).split("'") if part == "set_config"}

    before = names(f"SELECT {sql}")
    if before is not None:
        assert names(parse.folded(f"SELECT {sql}")) == before


def test_what_is_kept_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many statements there are, and however long; what is asked for all the time is read once."""
    catalog, often, read = known(), "SELECT 1 AS often", list[str]()

    def parsed(sql: str) -> list[Any] | None:
        read.append(sql)
        return []

    monkeypatch.setattr(lagwise._decide.statement, "parse", parsed)
    for number in range(3_000):
        effects_of(often, catalog)
        effects_of(f"SELECT '{'x' * (number % 5_000)}' AS n{number}", catalog)
        if number % 500 == 0:
            assert catalog.judged.held() <= KEPT
    assert KEPT // 4 < catalog.judged.held() <= KEPT
    assert read.count(often) == 1


def test_every_catalog_judges_for_itself() -> None:
    """What one database calls harmless is unknown to another, and to the same one read again after a change."""
    assert effects_of("SELECT near(1)", known()) == NOTHING
    assert effects_of("SELECT near(1)", known(known=Names())) == UNSEEN | UNKNOWN
    assert effects_of("SELECT near(1)", BUILT_IN) == UNSEEN | UNKNOWN


def test_without_a_parser_nothing_is_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no wheel of the parser, every statement counts as code that cannot be seen."""
    parser.take_away(monkeypatch)
    assert effects_of("SELECT 1", known()) == UNSEEN


@pytest.mark.parametrize("module", [lagwise._decide.catalog, lagwise._decide.parse, lagwise._decide.statement])
def test_the_examples_in_the_documentation_hold(module: Any) -> None:
    """What the docstrings show is what happens."""
    assert doctest.testmod(module).failed == 0
