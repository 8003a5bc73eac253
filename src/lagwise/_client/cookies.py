"""Cookies in which an older token cannot replace a newer one, and whose number is bounded.

A browser keeps the cookie that arrived last, and answers to one client may arrive in any order: the token of an
older write could replace the newer one's. So a token is set twice: under the plain name, and in a slot named
after the token itself, which no other token overwrites. A request brings all of its slots; their greatest
counts. An answer removes the slots that it covers: those whose token was verified and merged into its own.

A client that writes a hundred times at once would get a hundred slots, and no proxy passes so many. Beyond a few, an
answer goes into one crowd cookie instead, which says "until then see all that is committed when you read". Answers
overwrite each other there, in any order, without harm: "then" is a minute ahead, so that an older answer covers a
newer one as well, unless it arrives more than a minute after the newer. No answer removes the crowd cookie: another
answer may have overwritten it since the request left. The cookie expires by its age.
"""

import re
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from zlib import crc32

from lagwise._client.signature import plausible
from lagwise._given import instead

NAME = "lagwise"
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}")  # https://www.rfc-editor.org/rfc/rfc9110#name-tokens
# What a Set-Cookie header takes for a path and a domain.
_PATH, _DOMAIN = re.compile(r"/[ -:<-~]*"), re.compile(r"[0-9A-Za-z.-]+")
_CROWD = "many"
MOST_HEADERS = 1024
"""Headers of one request that are looked at. A browser sends one with all of its cookies, HTTP/2 up to one for each."""
MOST_BYTES = 128 * 1024
"""Bytes of one request's Cookie headers that are looked at: sixteen times what proxies pass."""
_BUCKET_AGE = 90 * 24 * 3600  # seconds: as long as any rollout takes
_MOST_REMOVED = 16  # by one answer: the answer's headers must fit into a proxy's buffer of 4 KB


@dataclass(frozen=True)
class Jar:
    """Names of the cookies, and their Set-Cookie values with all attributes.

    `key` is four hexadecimal digits, others for another secret: two services on one host must not overwrite each
    other's crowd cookie.

    Raises:
        ValueError: the name is no cookie's name, the path or the domain is none, or a browser would drop the cookie.
    """

    name: str = NAME
    path: str = "/"
    domain: str | None = None
    secure: bool = False
    key: str = "0000"

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"cookie must be a name of at most 64 letters, digits, - and the like{instead(self.name)}")
        if not (isinstance(self.path, str) and _PATH.fullmatch(self.path)):
            raise ValueError(f'path must begin with "/", and have no ";" in it{instead(self.path)}')
        if self.domain and not (isinstance(self.domain, str) and _DOMAIN.fullmatch(self.domain)):
            raise ValueError(f"domain must be the name of a host, or None{instead(self.domain)}")
        self._refuse_what_browsers_drop()

    def _refuse_what_browsers_drop(self) -> None:
        # Prefixes, in any case of letters: https://datatracker.ietf.org/doc/html/draft-ietf-httpbis-rfc6265bis. Such a
        # cookie would vanish without a word, and its client's writes be missed.
        prefix = f"{self.name.lower().partition('-')[0]}-"
        if prefix in {"__host-", "__secure-", "__http-"} and not self.secure:
            raise ValueError(f"browsers drop a cookie called {prefix}... that is not secure: give secure=True")
        if prefix == "__host-" and (self.path != "/" or self.domain):
            raise ValueError(
                "browsers drop a cookie called __host-... that has a path or a domain: leave both out, or call it "
                "__Secure-..."
            )

    def set(self, text: str, covered: Iterable[str], age: int) -> list[str]:
        """The Set-Cookie values for a token that covers the cookies of these names; age in seconds."""
        return self._set(text, self.slot(text), covered, age)

    def set_in_crowd(self, text: str, covered: Iterable[str], age: int) -> list[str]:
        """The same for a token that is crowded for a minute to come, and so needs no slot of its own."""
        return self._set(text, self.crowd, covered, age)

    def holds(self, name: str, text: str) -> bool:
        """Whether a cookie may hold what its name says: a slot is named after its token."""
        return plausible(text) and (name == self.name or self.is_crowd(name) or name == self.slot(text))

    def slot(self, text: str) -> str:
        """The name of the cookie that only this token is put into."""
        return f"{self.name}-{crc32(text.encode()):08x}"

    @cached_property
    def crowd(self) -> str:
        """The name of the cookie for answers that have no slot."""
        return f"{self.name}-{_CROWD}-{self.key}"

    def is_crowd(self, name: str) -> bool:
        """Whether this cookie of ours is a crowd's, of any secret."""
        return name.startswith(f"{self.name}-{_CROWD}-")

    def is_slot(self, name: str) -> bool:
        """Whether this cookie of ours is a slot."""
        return name != self.name and not self.is_crowd(name)

    def brought(self, header: str, most: int) -> list[tuple[str, str]]:
        """Name and value of the first cookies of ours; a client may hold several for several paths or domains."""
        return [(match[1], (match[2] or "").strip()) for match in islice(self._ours.finditer(header), most)]

    def bucket(self, header: str) -> int | None:
        """The bucket that a cookie of ours names; None for anything but six digits."""
        found = self._bucket.search(header)
        return int(found[1]) if found is not None else None

    def set_bucket(self, bucket: int) -> str:
        """The Set-Cookie value for a bucket."""
        return f"{self.name}-offload={bucket:06d}; Max-Age={_BUCKET_AGE}; {self._attributes}"

    def _set(self, text: str, own: str, covered: Iterable[str], age: int) -> list[str]:
        value = f"={text}; Max-Age={age}; {self._attributes}"
        cookies = [self.name + value, own + value]
        if removed := {*filter(self.is_slot, covered)} - {own}:
            value = f"=; Max-Age=0; {self._attributes}"
            cookies += [name + value for name in sorted(removed)[:_MOST_REMOVED]]
        return cookies

    @cached_property
    def _attributes(self) -> str:
        domain = f"; Domain={self.domain}" if self.domain else ""
        secure = "; Secure" if self.secure else ""
        return f"HttpOnly; Path={self.path}; SameSite=Lax{domain}{secure}"

    @cached_property
    def _bucket(self) -> "re.Pattern[str]":
        return re.compile(rf"(?:^|;)[ \t]*{re.escape(self.name)}-offload=([0-9]{{6}})[ \t]*(?=;|$)", re.A)

    @cached_property
    def _ours(self) -> "re.Pattern[str]":
        name = re.escape(self.name)
        return re.compile(
            rf"(?:^|;)[ \t]*({name}(?:-(?:[0-9A-Za-z]{{8}}|{_CROWD}-[0-9a-f]{{4}}))?)(?:=([^;]*)|[ \t]*(?=;|$))"
        )


class Given:
    """How many slots this process has given to each client lately, so that no client gets too many.

    A client is recognised by what it brought: requests that were sent together brought the same, and arrived together,
    however slowly they are answered. A client that brings nothing is recognised by its address and headers, which
    several may share. A mistake costs reads that wait for a replica, or a few more cookies; it never loses a write.
    """

    def __init__(self, *, seconds: float = 10.0, clients: int = 1024) -> None:
        self._seconds = seconds
        self._clients = clients
        self._given: OrderedDict[object, tuple[float, int]] = OrderedDict()

    def another(self, client: object, most: int, arrived: float) -> bool:
        """Whether this client may get one more slot; it is then counted.

        `arrived` is when the request arrived that is answered now: seconds of a monotonic clock.
        """
        since, count = self._given.get(client, (arrived, 0))
        if arrived - since > self._seconds:
            since, count = arrived, 0
        if count >= most:
            return False
        self._given[client] = since, count + 1
        self._given.move_to_end(client)
        if len(self._given) > self._clients:
            self._given.popitem(last=False)
        return True
