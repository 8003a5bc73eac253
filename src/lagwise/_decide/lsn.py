"""A position in PostgreSQL's write-ahead log, as a number that prints like one."""

import re
from typing import Self

_PAGE = 8192  # XLOG_BLCKSZ, the default build
_HEADERS = (24, 40)  # SizeOfXLogShortPHD, SizeOfXLogLongPHD
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

    def normalised(self) -> "LSN":
        """Take the page header off an insert position that stands right behind one.

        At a page boundary `pg_current_wal_insert_lsn()` already counts the header of a page on which
        nothing has been written (24 bytes; 40 on the first page of a segment), so an idle replica that
        has replayed everything would look behind for as long as nobody writes.

        >>> LSN(8192 + 24).normalised() == 8192
        True
        """
        # Sound for any page: no record is shorter than 24 bytes, so none ends between a header and
        # offset 40; a replica at or past the page's start has replayed all that ends this early in it.
        offset = self % _PAGE
        return LSN(self - offset) if offset in _HEADERS else self

    def __str__(self) -> str:
        return f"{self >> 32:X}/{self & 0xFFFFFFFF:X}"

    def __repr__(self) -> str:
        return f"LSN('{self}')"
