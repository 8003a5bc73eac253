"""What an LSN promises: a number that reads and prints as PostgreSQL's, and loses nothing when normalised."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import lagwise._decide.lsn
from lagwise import LSN
from tests.kit.worlds import lsns

PAGE, SEGMENT = 8192, 16 * 1024 * 1024
SHORT_HEADER, LONG_HEADER, RECORD_HEADER, ALIGNMENT = 24, 40, 24, 8


def header(page_start: int) -> int:
    """How many bytes PostgreSQL puts at the front of this page."""
    return LONG_HEADER if page_start % SEGMENT == 0 else SHORT_HEADER


def written(start: int, length: int) -> int:
    """Where a record of this length that begins at `start` ends: its last byte, rounded up to 8."""
    position, left = start, -(-length // ALIGNMENT) * ALIGNMENT
    while True:
        room = PAGE - position % PAGE
        if left <= room:
            return position + left
        position, left = position + room, left - room
        position += header(position)


def insert_position(end: int) -> int:
    """What `pg_current_wal_insert_lsn()` says after a record that ends here: where the next one begins."""
    return end + header(end) if end % PAGE == 0 else end


@given(lsns)
def test_its_text_reads_back(lsn: LSN) -> None:
    """What is printed is what is parsed, in upper or lower case."""
    assert LSN.parse(str(lsn)) == lsn
    assert LSN.parse(str(lsn).lower()) == lsn


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0/0", 0),
        ("16/B374D848", 0x16_B374D848),
        ("0/2000028", 0x2000028),
        ("FFFFFFFF/FFFFFFFF", (1 << 64) - 1),
    ],
)
def test_it_prints_as_postgresql_does(text: str, number: int) -> None:
    """Two hexadecimal numbers around a slash, without leading zeros."""
    assert text == str(LSN(number))
    assert f"LSN('{text}')" == repr(LSN(number))


@given(lsns, lsns)
def test_it_orders_as_a_number(one: LSN, other: LSN) -> None:
    """Order and difference are those of the number of bytes, never of the text."""
    assert (one < other) == (int(one) < int(other))
    assert max(one, other) - min(one, other) == abs(int(one) - int(other))


@pytest.mark.parametrize(
    "text",
    ["", "/", "0", "0/", "/0", "0/0/0", "1/123456789", "123456789/1", " 0/0", "0/0\n", "-1/0", "0/-1", "0x1/0", "g/0",
     "٣/0", "1_0/0", "+1/0", "\x00/0"],
)  # fmt: skip
def test_text_that_is_no_lsn_is_refused(text: str) -> None:
    """Nothing but PostgreSQL's own form is taken, whatever `int()` would make of it."""
    with pytest.raises(ValueError, match="not an LSN"):
        LSN.parse(text)


@given(st.text(alphabet="0123456789abcdefABCDEFx/_ -+\n", max_size=20))
def test_parsing_answers_or_refuses(text: str) -> None:
    """Any text is an LSN or a ValueError, and what is accepted is the same number when printed."""
    try:
        parsed = LSN.parse(text)
    except ValueError:
        return
    high, low = text.split("/")
    assert (int(high, 16), int(low, 16)) == (parsed >> 32, parsed & 0xFFFFFFFF)


@given(st.one_of(st.integers(max_value=-1), st.integers(min_value=1 << 64)))
def test_numbers_outside_64_bits_are_refused(number: int) -> None:
    """An LSN is an unsigned 64-bit number; nothing wraps around."""
    with pytest.raises(ValueError, match="64-bit"):
        LSN(number)


@pytest.mark.parametrize("page", [PAGE, 5 * PAGE, SEGMENT - PAGE, SEGMENT, 3 * SEGMENT])
def test_an_idle_primary_is_not_ahead_of_its_log(page: int) -> None:
    """Right behind a page header, of either length, stands nothing that was written after the page's start."""
    assert page == LSN(page + header(page)).normalised()


@given(lsns)
def test_normalising_only_takes_off_a_header(lsn: LSN) -> None:
    """It never raises a position, takes off one header at most, and does nothing the second time."""
    normalised = lsn.normalised()
    assert lsn - normalised in {0, SHORT_HEADER, LONG_HEADER}
    assert normalised.normalised() == normalised
    assert (normalised != lsn) == (lsn % PAGE == header(lsn - lsn % PAGE))


@given(lsns, lsns)
def test_normalising_keeps_the_order(one: LSN, other: LSN) -> None:
    """A later position does not become an earlier one."""
    if one <= other and one % PAGE not in range(SHORT_HEADER, LONG_HEADER):
        assert one.normalised() <= other.normalised()


@given(
    st.integers(0, 4).map(lambda segment: SEGMENT * segment),
    st.lists(st.integers(RECORD_HEADER, 3 * PAGE), min_size=1, max_size=30),
    st.integers(-3, 3).map(lambda pages: pages * PAGE),
)
@example(0, [PAGE - LONG_HEADER], 0)  # ends exactly at a page's end
@example(0, [PAGE - LONG_HEADER + 16], 0)  # ends 40 bytes into a page that is no segment's first: looks like a header
def test_who_has_replayed_the_normalised_position_has_replayed_the_record(
    segment: int, lengths: list[int], offset: int
) -> None:
    """No record ends in between: a replica at or past the normalised position has replayed all up to it.

    A log of records of any length is written as PostgreSQL lays it out. A replica's replayed position is
    always the end of a record, so the promise is about those.
    """
    position = max(0, segment + offset) // PAGE * PAGE
    ends, position = [position], position + header(position)
    for length in lengths:
        end = written(position, length)
        floor = LSN(insert_position(end)).normalised()
        assert not [replayed for replayed in ends if replayed >= floor], "an older position satisfies the floor"
        assert end >= floor, "a replica that has everything looks behind"
        ends.append(end)
        position = insert_position(end)


def test_the_examples_in_the_documentation_hold() -> None:
    """What the docstrings show is what happens."""
    assert doctest.testmod(lagwise._decide.lsn).failed == 0


@pytest.mark.parametrize("page", [1 << power for power in range(10, 17)])
@pytest.mark.parametrize("segment", [1 << 20, 16 << 20, 1 << 30])
def test_the_servers_own_pages_and_segments_count(page: int, segment: int) -> None:
    """A page header is taken off where this server has one, and nothing where it has none."""
    for start in (page, 7 * page, segment - page, segment, 5 * segment):
        header = 40 if start % segment == 0 else 24
        assert start == LSN(start + header).normalised(page, segment)
        for offset in (16, 64 - header, 48, page - 1):
            assert start + offset == LSN(start + offset).normalised(page, segment)


def test_the_pages_of_another_server_lose_a_commit() -> None:
    """24 bytes behind 8192 is the middle of a page of 16 kB: a record may end there, and it counts."""
    assert LSN(8192 + 24).normalised(page=16384) == 8192 + 24
    assert LSN(8192 + 24).normalised() == 8192  # what the default build's pages would make of it
