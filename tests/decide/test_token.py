"""What a causal token promises: it only grows, survives the trip, and no text can break its reader."""

from __future__ import annotations

import base64
import doctest
import random
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lagwise._decide.token
from lagwise import LSN, CausalToken, InvalidToken
from lagwise._decide.token import Position, merged
from tests.kit.hostile import hostile, read
from tests.kit.worlds import epochs, positions, systems, tokens

MOST = 16
MINUTE = 60.0


def covers(token: CausalToken, position: Position) -> bool:
    """Whether a read that respects the token respects the position."""
    held = token.position(position.system)
    return held is not None and (
        (held.timeline, held.lsn) >= (position.timeline, position.lsn)
        and held.issued_at >= position.issued_at
        and held.in_doubt_at >= position.in_doubt_at
    )


@given(tokens(), tokens(), tokens())
def test_merging_is_a_join(one: CausalToken, two: CausalToken, three: CausalToken) -> None:
    """Any order, any grouping, any number of times: the same token."""
    assert one.merge(two) == two.merge(one)
    assert one.merge(two).merge(three) == one.merge(two.merge(three))
    assert one.merge(one) == one
    assert one.merge(CausalToken()) == one == CausalToken().merge(one)
    for order in permutations([one, two, three]):
        assert merged(order) == one.merge(two).merge(three)


@given(tokens(), tokens())
def test_merging_never_lowers_anything(one: CausalToken, two: CausalToken) -> None:
    """Everything either side had seen is covered, and nothing that neither had seen."""
    both = one.merge(two)
    for position in (*one, *two):
        assert covers(both, position)
    for position in both:
        sides = [side for side in (one.position(position.system), two.position(position.system)) if side]
        assert (position.timeline, position.lsn) in {(side.timeline, side.lsn) for side in sides}
        assert position.issued_at in {side.issued_at for side in sides}
        assert position.in_doubt_at in {side.in_doubt_at for side in sides}


@given(tokens(), tokens(), tokens())
def test_the_merge_is_the_least_that_covers_both(one: CausalToken, two: CausalToken, more: CausalToken) -> None:
    """Whatever covers both sides covers their merge: nothing is demanded without a reason."""
    above = one.merge(two).merge(more)
    assert above.merge(one.merge(two)) == above
    assert above.merge(one) == above == above.merge(two)


@given(st.lists(positions()), positions())
def test_including_a_position_covers_it(before: list[Position], position: Position) -> None:
    """A write that has just been acknowledged is in the token from then on."""
    token = CausalToken.of(before[: MOST - 1]).including([position])
    assert covers(token, position)
    assert sorted(held.system for held in token) == [held.system for held in token]


@given(positions(st.just(7)), positions(st.just(7)))
def test_a_timeline_outranks_every_position_of_an_earlier_one(one: Position, two: Position) -> None:
    """After a promotion the log continues from below; only the timeline tells which position is later."""
    later = one if one.timeline > two.timeline else two
    if one.timeline != two.timeline:
        assert one.merge(two).lsn == later.lsn


@given(tokens())
def test_it_survives_its_text(token: CausalToken) -> None:
    """What is read back is what was sent."""
    assert CausalToken.parse(str(token)) == token
    assert bool(token) == bool(str(token))


@given(tokens())
def test_its_text_is_opaque_and_fits_a_header_or_a_cookie(token: CausalToken) -> None:
    """Letters, digits, minus and underscore; no number of the database can be read off it."""
    text = str(token)
    assert text.isascii()
    assert text.replace("-", "").replace("_", "").isalnum() or not text
    for position in token:
        assert str(position.lsn) not in text


def dated(position: Position) -> int:
    """When the client last wrote there, or may have."""
    return max(position.issued_at, position.in_doubt_at)


distinct = st.lists(positions(), min_size=MOST, max_size=2 * MOST, unique_by=lambda position: position.system)


@given(distinct)
def test_it_cannot_grow_past_sixteen_databases(many: list[Position]) -> None:
    """The text stays a fraction of what a cookie holds; the clusters written last are the ones that stay."""
    token = CausalToken.of(many)
    assert len(token.positions) == MOST
    assert len(str(token)) <= 605
    assert CausalToken.parse(str(token)) == token
    kept = {position.system for position in token}
    oldest_kept = min((dated(position) for position in token if position.system), default=0)
    for position in many:
        if position.system not in kept:
            assert dated(position) <= oldest_kept


def respected(token: CausalToken, position: Position, window: float) -> bool:
    """Whether reads miss nothing of it: its place is kept, or a doubt outlasts its window by any clock."""
    floor = token.floor(position.system)
    if floor is None:
        return False
    placed = (floor.timeline, floor.lsn) >= (
        position.timeline,
        position.lsn,
    ) and floor.in_doubt_at >= position.in_doubt_at
    return placed or floor.in_doubt(window, dated(position) + window + MINUTE - 1)


crowds = st.lists(st.tuples(st.integers(1, 300), st.integers(0, 300)), min_size=MOST, max_size=MOST + 5)


@given(crowds, st.integers(0, 99))
def test_the_seventeenth_database_keeps_its_client_on_the_primary(times: list[tuple[int, int]], seed: int) -> None:
    """What has no room becomes a doubt about every cluster, for as long as its window; in any order, over any trips."""
    many = [
        Position(system=system, timeline=1, lsn=LSN(9), issued_at=issued, in_doubt_at=doubt)
        for system, (issued, doubt) in enumerate(times, 1)
    ]
    random.Random(seed).shuffle(many)
    token = CausalToken()
    for position in many:
        token = CausalToken.parse(str(token.including([position])))
    for position in many:
        assert respected(token, position, 5.0)
        assert respected(CausalToken.of(many), position, 5.0)
        assert respected(CausalToken.of(many).merge(token), position, 5.0)


def test_sixteen_databases_are_no_doubt() -> None:
    """The doubt costs the primary reads: it is for the seventeenth, not before."""
    token = CausalToken.of(Position(system=n, timeline=1, lsn=LSN(9), issued_at=100) for n in range(1, MOST + 1))
    assert token.position(0) is None
    assert not any(position.in_doubt_at for position in token)


def test_nothing_seen_is_no_text() -> None:
    """A client that has written nothing carries nothing."""
    assert str(CausalToken()) == ""
    assert CausalToken.parse("") == CausalToken()


def test_ten_thousand_bad_texts_are_invalid_tokens_and_nothing_else() -> None:
    """Whatever arrives, the reader answers a token or raises InvalidToken without repeating the text."""
    random_ = random.Random(2)
    good = str(CausalToken.of(Position(system=system, timeline=1, lsn=LSN(64), issued_at=9) for system in (7, 8)))
    refused = 0
    for text in [bad for _ in range(1000) for bad in hostile(random_, good)]:
        answer = read(CausalToken.parse, text)
        if isinstance(answer, CausalToken):
            assert CausalToken.parse(str(answer)) == answer
        else:
            refused += 1
    assert refused > 7000


@given(st.text())
def test_any_text_is_a_token_or_invalid(text: str) -> None:
    """Surrogates, control characters, right-to-left marks: InvalidToken, never another exception."""
    read(CausalToken.parse, text)


@pytest.mark.parametrize(
    "text",
    [
        "A",
        "AQ",
        "AQ==",
        "====",
        "not base64!",
        "AQ\n",
        "\ud800",
        "é",
        "AA" * 30,
        base64.urlsafe_b64encode(b"\x02" + bytes(28)).decode(),
        base64.urlsafe_b64encode(b"\x01" + bytes(27)).decode(),
        base64.urlsafe_b64encode(b"\x01" + bytes(28 * 17)).decode(),
        "AQ" * 1_000_000,
    ],
    ids=["one", "short", "padded", "padding", "prose", "newline", "surrogate", "accent", "version 0", "version 2",
         "cut", "seventeen", "huge"],
)  # fmt: skip
def test_text_that_is_no_token_is_refused(text: str) -> None:
    """Another version, a cut entry, too many entries, no base64 at all."""
    with pytest.raises(InvalidToken, match="not a causal token"):
        CausalToken.parse(text)


@given(systems, st.floats(1, 3600), st.floats(-MINUTE + 2, MINUTE - 2), epochs, st.floats(0, 1))
def test_a_doubt_outlives_its_window_whatever_the_clocks_say(
    system: int, window: float, skew: float, at: int, part: float
) -> None:
    """Two servers whose clocks are less than a minute apart: a doubt is never dropped inside its window."""
    position = Position(system=system, in_doubt_at=at + 1)
    elsewhere = at + 1 + part * window + skew
    assert position.in_doubt(window, elsewhere)


@given(systems, st.floats(1, 3600), st.floats(-MINUTE + 2, MINUTE - 2), epochs, st.floats(0, 1))
def test_a_position_is_not_called_expired_inside_its_window_whatever_the_clocks_say(
    system: int, window: float, skew: float, at: int, part: float
) -> None:
    """Two servers whose clocks are less than a minute apart: skew only makes a position live longer."""
    position = Position(system=system, timeline=1, lsn=LSN(64), issued_at=at)
    assert not position.expired(window, at + part * window + skew)


@given(positions(), st.floats(0, 3600))
def test_time_ends_every_doubt_and_expires_every_position(position: Position, window: float) -> None:
    """Two minutes after the window, by the same clock, neither holds a client to the primary any more."""
    last = max(position.issued_at, position.in_doubt_at)
    assert not position.in_doubt(window, last + window + 2 * MINUTE)
    assert position.expired(window, last + window + 2 * MINUTE)


@given(positions(), st.floats(0, 3600), epochs, epochs)
def test_time_only_runs_one_way(position: Position, window: float, now: int, later: int) -> None:
    """What has expired stays expired, and a doubt that has ended stays ended."""
    now, later = sorted((now, later))
    assert not (position.expired(window, now) and not position.expired(window, later))
    assert not (position.in_doubt(window, later) and position.in_doubt_at <= now and not position.in_doubt(window, now))


@given(positions(), st.floats(0, 3600), epochs)
def test_no_doubt_was_never_in_doubt(position: Position, window: float, now: int) -> None:
    """A position without a doubt is not in doubt at any time, the epoch's first minute included."""
    plain = Position(system=position.system, timeline=1, lsn=position.lsn, issued_at=position.issued_at)
    assert not plain.in_doubt(window, now)


def test_a_doubt_about_a_cluster_without_a_name_concerns_every_cluster() -> None:
    """A commit whose cluster could not be asked may have been to this one: its doubt counts here too."""
    placed = Position(system=7, timeline=2, lsn=LSN(64), issued_at=10)
    token = CausalToken.of([placed, Position(system=0, in_doubt_at=20)])
    assert Position(system=7, timeline=2, lsn=LSN(64), issued_at=10, in_doubt_at=20) == token.floor(7)
    assert Position(system=8, in_doubt_at=20) == token.floor(8)
    assert Position(system=0, in_doubt_at=20) == token.floor(0)
    assert placed == CausalToken.of([placed]).floor(7)
    assert CausalToken.of([placed]).floor(8) is None


def test_the_examples_in_the_documentation_hold() -> None:
    """What the docstrings show is what happens."""
    assert doctest.testmod(lagwise._decide.token).failed == 0
