"""What `plain` promises: it says True only of a query that leaves nothing behind on its connection."""

from __future__ import annotations

import doctest
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

import lagwise._decide.statement
from lagwise._decide.statement import plain


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


@pytest.mark.parametrize("name", QUERIES)
def test_ordinary_queries_cost_one_round_trip(name: str) -> None:
    """What the ORM and Core make of a query is recognised: its connection needs no reset."""
    sql = compiled(QUERIES[name])
    assert plain(sql), sql


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
    ],
)
def test_ordinary_text_is_plain(sql: str) -> None:
    """So is the same by `text()`, in upper or lower case."""
    assert plain(sql)


LEAVE_SOMETHING = [
    "SELECT set_config('search_path', 'tenant', false)",
    "select SET_CONFIG ('search_path', 'tenant', false)",
    "SELECT\nset_config\n\t(\n'search_path', 'tenant', false)",
    "SELECT pg_catalog.set_config('search_path', 'tenant', false)",
    "SELECT \"set_config\"('search_path', 'tenant', false)",
    "SELECT pg_catalog.\"set_config\" ('search_path', 'tenant', false)",
    "SELECT \"pg_catalog\".\"set_config\"('search_path', 'tenant', false)",
    "SELECT U&\"set\\005fconfig\"('search_path', 'tenant', false)",
    # Words and characters that PostgreSQL takes for a function's name.
    "SELECT U&\"set!005fconfig\" UESCAPE '!' ('search_path', 'tenant', false)",
    "SELECT u&\"set!005fconfig\"\nuEsCaPe '!'('search_path', 'tenant', false)",
    "SELECT app . lower('x')",
    "SELECT app. lower('x')",
    "SELECT app .lower('x')",
    "SELECT app\n.\tlower\n('x')",
    "SELECT \"App\".lower('x')",
    "SELECT \"App\" . lower('x')",
    "SELECT \"pg_catalog.lower\"('x')",
    "SELECT \"lower \"('x')",
    "SELECT app.pg_catalog.lower('x')",
    "SELECT \u00e9lower('x')",
    "SELECT \u00e9('x')",
    "SELECT \U0001f600count('x')",
    "SELECT ran\u212a('x')",
    "SELECT materialized('x')",
    "SELECT recursive('x')",
    "SELECT partition('x')",
    "SELECT filter('x')",
    "SELECT over('x')",
    "SELECT first('x')",
    "SELECT next('x')",
    "SELECT 1 ORDER BY by('x')",
    "WITH a AS (SELECT 1) SELECT a('x')",
    "SELECT 1; SET search_path = tenant",
    "SELECT 1;",
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
    "SELECT pg_advisory_lock(1)",
    "SELECT pg_advisory_lock_shared(1, 2)",
    "SELECT pg_try_advisory_lock($1::BIGINT)",
    "SELECT pg_advisory_unlock_all()",
    "SELECT setseed(0.5)",
    "SELECT nextval('item_id_seq')",
    "SELECT lo_open(1, 1)",
    "SELECT pg_notify('channel', 'text')",
    "SELECT dblink_connect('name', 'dbname=x')",
    "SELECT query_to_xml('SELECT set_config(''a.b'', ''c'', false)', true, true, '')",
    "SELECT become_tenant(7)",
    "SELECT app.become_tenant(7)",
    "SELECT app.lower('x')",
    "SELECT app.count(*)",
    "SELECT my_lower('x'), lower_my('x'), lower2('x'), _lower('x'), lower$('x')",
    "SET search_path = tenant",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
    "SET ROLE tenant",
    "RESET ALL",
    "DISCARD PLANS",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "DEALLOCATE p",
    "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
    "LISTEN channel",
    "UNLISTEN *",
    "NOTIFY channel",
    "LOAD 'auto_explain'",
    "CREATE TEMP TABLE t (id int)",
    "DO $$ BEGIN PERFORM set_config('search_path', 'tenant', false); END $$",
    "CALL become_tenant(7)",
    "EXPLAIN ANALYZE SELECT set_config('search_path', 'tenant', false)",
    "COPY (SELECT set_config('search_path', 'tenant', false)) TO STDOUT",
    "BEGIN",
    "LOCK TABLE item",
    "SHOW search_path",
    "VALUES (set_config('search_path', 'tenant', false))",
    "TABLE item",
    "(SELECT set_config('search_path', 'tenant', false))",
    "/* SELECT */ SET search_path = tenant",
    "-- SELECT\nSET search_path = tenant",
    "SELECTED",
    "WITHOUT",
    "",
    "   ",
]


@pytest.mark.parametrize("sql", LEAVE_SOMETHING)
def test_what_may_outlive_its_session_is_not_plain(sql: str) -> None:
    """Settings, locks, prepared statements, cursors, functions of the application's own: the connection is reset."""
    assert not plain(sql)


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
def test_what_sqlalchemy_makes_of_such_calls_is_not_plain(statement: ClauseElement) -> None:
    """The same by `func.` and `text()`, wherever in the statement the call stands."""
    assert not plain(compiled(statement))


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
    assert not plain(place.format(call.upper() if upper else call))


@given(st.text(max_size=80))
def test_any_text_has_an_answer(sql: str) -> None:
    """Never an exception, and never True for what does not begin as a query."""
    if plain(sql):
        assert sql.lstrip().lower().startswith(("select", "with"))


@given(st.text("selctwith SELCTWITH_1(.)\"'", max_size=12).map(lambda beginning: beginning + " set_config('a','b')"))
def test_no_beginning_hides_a_call(sql: str) -> None:
    """Whatever stands in front of it, set_config with its parenthesis is seen."""
    assert not plain(sql)


def test_the_examples_in_the_documentation_hold() -> None:
    """What the docstrings show is what happens."""
    assert doctest.testmod(lagwise._decide.statement).failed == 0
