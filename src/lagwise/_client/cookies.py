"""Cookies that cannot regress: each answer has a slot of its own, and tidies away what it covers.

A browser keeps the cookie that arrived last, and answers to one client may arrive in any order: the token of an
older write could replace the newer one's. So a token is set twice: under the plain name, and in a slot named
after the token itself, which no other token overwrites. A request brings all of its slots; their greatest
counts. An answer removes the slots its request had brought, because its own token covers them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from zlib import crc32

NAME = "lagwise"
_SLOT = f"{NAME}-"


@dataclass(frozen=True)
class Jar:
    """How cookies are set: their attributes, and `Secure` for sites served over HTTPS only."""

    path: str = "/"
    domain: str | None = None
    secure: bool = False

    def set(self, text: str, brought: Iterable[str], age: int) -> list[str]:
        """The Set-Cookie values for a token, by a request that brought cookies of these names; age in seconds."""
        slot = f"{_SLOT}{crc32(text.encode()):08x}"
        covered = sorted({name for name in brought if name.startswith(_SLOT)} - {slot})
        return [
            self._cookie(NAME, text, age),
            self._cookie(slot, text, age),
            *(self._cookie(name, "", 0) for name in covered),
        ]

    def _cookie(self, name: str, value: str, age: int) -> str:
        return f"{name}={value}; Max-Age={age}; {self._attributes}"

    @cached_property
    def _attributes(self) -> str:
        domain = f"; Domain={self.domain}" if self.domain else ""
        secure = "; Secure" if self.secure else ""
        return f"HttpOnly; Path={self.path}; SameSite=Lax{domain}{secure}"


def brought(header: str) -> list[tuple[str, str]]:
    """Name and value of every cookie of ours; a client may hold several for several paths or domains."""
    pairs = (pair.strip().partition("=") for pair in header.split(";"))
    return [(name, value) for name, _, value in pairs if name == NAME or (name.startswith(_SLOT) and _is_slot(name))]


def _is_slot(name: str) -> bool:
    slot = name.removeprefix(_SLOT)
    return len(slot) == 8 and slot.isalnum() and slot.isascii()
