"""What is told of a text that was not parsed: whatever its parse tree would tell of its statements."""

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lagwise._decide import parse, unparsed
from lagwise._decide.effect import UNSEEN, Effect
from lagwise._decide.statement import effects_of

BY_WORDS = Effect.ENDS | Effect.BEGINS | Effect.LIFTS | Effect.SPOILS | Effect.TOUCHES
STATEMENTS = [
    "COMMIT", "END", "ABORT WORK", "ROLLBACK", "ROLLBACK TO a", "ROLLBACK WORK TO SAVEPOINT a", "COMMIT AND CHAIN",
    "COMMIT PREPARED 'x'", "PREPARE TRANSACTION 'x'", "PREPARE p AS SELECT 1",
    'PREPARE "transaction" (int) AS SELECT $1', "BEGIN", "BEGIN ISOLATION LEVEL SERIALIZABLE, READ WRITE",
    "START TRANSACTION READ WRITE",
    "SAVEPOINT a", "RELEASE a",
    "SET search_path = tenant", "SET LOCAL search_path = tenant", "SET SESSION ROLE tenant", "RESET ROLE", "RESET ALL",
    "SET CONSTRAINTS ALL DEFERRED", "SET TRANSACTION READ WRITE", "SET TRANSACTION READ ONLY",
    "SET transaction_read_only = off", 'SET "default_transaction_read_only" TO DEFAULT',
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE", "SET standard_conforming_strings = off",
    "RESET default_transaction_read_only", "DISCARD ALL", "DISCARD PLANS", "DISCARD TEMP", "DEALLOCATE ALL",
    "LISTEN a", "UNLISTEN *", "DECLARE c CURSOR WITH HOLD FOR SELECT 1", "DECLARE c CURSOR FOR SELECT 1",
    "CREATE TEMP TABLE t (id int)", "CREATE TABLE t (id int)", "CREATE OR REPLACE TEMPORARY VIEW v AS SELECT 1",
    "CREATE LOCAL TEMPORARY TABLE t (id int) ON COMMIT DROP", "CREATE TEMP SEQUENCE s",
    "SELECT 1", "SELECT CASE WHEN true THEN 1\nEND", "INSERT INTO t VALUES (1)", "VALUES ('x')", "",
]  # fmt: skip
# What stands between two words, and what quotes and hides.
GAPS = [" ", "\n", "\t", " /* a; /* COMMIT */ ; */ ", "-- it's; \n", "--\r", "/**/"]
HIDING = [
    "'; COMMIT; '",
    '"; BEGIN"',
    "$$; END; $$",
    "$a$; DISCARD ALL $$ ; $a$",
    "'--'",
    "'/*'",
    "'$$'",
    "a$b$",
    "'it''s'",
]
NOISE = [
    "'",
    '"',
    "$$",
    "$a$",
    "--",
    "/*",
    "*/",
    "\n",
    ";",
    "; COMMIT",
    " ",
    "1",
    "a",
    "\u00e9",
    "E",
    "+",
    "; SET a = 1",
]


def told(sql: str) -> Effect:
    """What the tree of this text tells of its statements."""
    return effects_of(sql) & BY_WORDS


@pytest.mark.parametrize("statement", STATEMENTS)
@pytest.mark.parametrize("gap", GAPS)
def test_every_statement_tells_by_its_words_what_its_tree_tells(statement: str, gap: str) -> None:
    """Alone, behind others and in capitals or not, with comments between its words."""
    for sql in (statement, statement.lower().replace(" ", gap), f"SELECT 1 ;{gap}{statement}{gap};{gap}SELECT 2"):
        assert parse.parse(sql) is not None, sql
        assert told(sql) in unparsed.unparsed(gap + sql), sql


@given(st.lists(st.sampled_from(STATEMENTS + HIDING + GAPS + ["SELECT ", ";", "; "]), max_size=12).map("".join))
def test_nothing_is_hidden_in_a_script(sql: str) -> None:
    """Quotes, dollars, names and comments end where PostgreSQL's own scanner ends them."""
    if parse.parse(sql) is not None:
        assert told(sql) in unparsed.unparsed(sql)


@given(st.lists(st.sampled_from(NOISE), max_size=14).map("".join))
def test_nothing_is_hidden_in_noise(noise: str) -> None:
    """The same for any order of what quotes and what ends a quotation."""
    sql = f"SELECT {noise}"
    if parse.parse(sql) is not None:
        assert told(sql) in unparsed.unparsed(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT CASE a WHEN 'x; COMMIT' THEN 1\nEND FROM t;",
        "/* who; COMMIT */ SELECT 'it''s; END' -- ; ROLLBACK\n;",
        "DO $$ BEGIN PERFORM f(); END $$",
        "DO $body$ BEGIN PERFORM f($$x$$); COMMIT; END $body$; SELECT 1",
        'SELECT "a; COMMIT" FROM t; SELECT 1',
        "SELECT commit, ends FROM t; INSERT INTO set_up VALUES (1)",
        "SAVEPOINT a; RELEASE SAVEPOINT a; ROLLBACK TO SAVEPOINT a; SET LOCAL search_path = tenant",
        r"SELECT CASE WHEN a ~ '\d' THEN 1 END",
    ],
)
def test_what_only_looks_like_the_end_of_a_transaction_is_none(sql: str) -> None:
    """CASE ... END, a block's body, a literal, a name, a comment, a savepoint: reads with these are not refused."""
    assert unparsed.unparsed(sql) == UNSEEN


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1 AS a$b$; COMMIT; SELECT 1 AS a$b$",
        "SELECT 1 AS \u00e9$$; COMMIT; SELECT 1 AS \u00e9$$",
        "SELECT $b$ $B$ $b$; COMMIT; SELECT $b$ $B$ $b$",
        "SELECT '$$'; COMMIT; SELECT '$$'",
        "SELECT 1 -- '\n; COMMIT; SELECT 1 -- '",
        "SELECT 1 -- /*\r; COMMIT; SELECT 1 -- */",
        "SELECT 1 /* /* */ ' */; COMMIT; SELECT 1 /* ' */",
        'SELECT 1 AS "\'"; COMMIT; SELECT 1 AS "\'"',
        "SELECT '\"'; COMMIT; SELECT '\"'",
        "SELECT U&'a' UESCAPE '!'; COMMIT; SELECT B'1'",
        "SELECT 'a'\n'b'''; COMMIT; SELECT ''''",
    ],
)
def test_what_quotes_nothing_hides_no_end_of_a_transaction(sql: str) -> None:
    """A dollar within a name, a quote within a comment, a comment within a quote."""
    assert told(sql) == Effect.ENDS
    assert Effect.ENDS in unparsed.unparsed(sql)


def test_where_a_backslash_may_escape_a_quote_every_semicolon_counts() -> None:
    r"""`'\'; COMMIT; --'` is one literal or three statements, by a setting of the server's."""
    assert Effect.ENDS in unparsed.unparsed(r"SELECT '\'; COMMIT; --'")
    assert Effect.ENDS in unparsed.unparsed(r"SELECT E'\''; /* now */ COMMIT; SELECT ''")


def test_text_that_is_too_long_is_told_by_its_words() -> None:
    """A script of more than the parser reads, of more than is folded, and one with a list that is folded."""
    for size in (parse.LIMIT, 1 << 20):
        assert Effect.ENDS in effects_of(f"INSERT INTO t VALUES (1); COMMIT; BEGIN -- {'x' * size}")
        assert effects_of(f"SELECT CASE WHEN true THEN 1 END -- {'x' * size}") == UNSEEN


def test_the_examples_of_unparsed_text_hold() -> None:
    """What the docstring shows is what happens."""
    assert doctest.testmod(unparsed).failed == 0
