"""A position in PostgreSQL's write-ahead log, as a number that prints like one."""

import re
from typing import Self

PAGE, SEGMENT = 8192, 16 << 20  # XLOG_BLCKSZ of the default build, and initdb's segments
_SHORT, _LONG = 24, 40  # SizeOfXLogShortPHD, SizeOfXLogLongPHD
_TEXT = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})", re.ASCII)


class LSN(int):
    """A log sequence number: bytes since the beginning of the write-ahead log.

    Differences are bytes. Source: https://www.postgresql.org/docs/current/datatype-pg-lsn.html

    >>> LSN.parse("16/B374D848")
    LSN('16/B374D848')
    >>> LSN.parse("0/2000010") - LSN.parse("0/2000000")
    16
    """

    __slots__ = ()

    def __new__(cls, value: int = 0) -> Self:
        """Raises `ValueError` outside 0 to 2**64 - 1."""
        if not 0 <= value < 1 << 64:
            raise ValueError(f"an LSN is an unsigned 64-bit number, not {value}")
        return super().__new__(cls, value)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read PostgreSQL's text form, two hexadecimal numbers around a slash; `ValueError` otherwise."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ValueError(f"not an LSN: {text[:40]!r} (expected a form such as 16/B374D848)")
        return cls(int(match[1], 16) << 32 | int(match[2], 16))

    def normalised(self, page: int = PAGE, segment: int = SEGMENT) -> "LSN":
        """Take the page header off an insert position that stands right behind one.

        At a page boundary `pg_current_wal_insert_lsn()` already counts the header of a page on which
        nothing has been written (24 bytes; 40 on the first page of a segment), so an idle replica that
        has replayed everything would look behind for as long as nothing is written. `page` and `segment` are the
        server's `wal_block_size` and `wal_segment_size` in bytes: with those of another server, a position inside
        a page would lose what a commit has written there.

        >>> LSN(8192 + 24).normalised() == 8192
        True
        >>> LSN(8192 + 24).normalised(page=16384)
        LSN('0/2018')
        """
        # Sound: no record is shorter than 24 bytes, so none that begins on this page ends with its header; and a
        # replica at the page's start has replayed every record that began before it and ended there.
        offset = self % page
        if offset > _LONG:
            return self
        header = _SHORT if (self - offset) % segment else _LONG
        return LSN(self - offset) if offset == header else self

    def __str__(self) -> str:
        return f"{self >> 32:X}/{self & 0xFFFFFFFF:X}"

    def __repr__(self) -> str:
        return f"LSN('{self}')"
