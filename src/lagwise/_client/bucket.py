"""In which bucket a client is, while a Router lets only a share of the clients read from replicas."""

import re
import secrets
from collections.abc import Iterable

from lagwise._client.cookies import MOST_BYTES, MOST_HEADERS, Jar
from lagwise._decide.offload import BUCKETS, bucket_of

_QUOTED = re.compile(rb'"(?:\\.|[^"\\])*"')


class Bucket:
    """The bucket of the client of one request, found when a Router asks.

    It comes from the client's cookie; else from its `Authorization` header, so that a program that keeps no cookies
    stays where it is; else it is drawn. The cookie is not signed: a client that changes it moves its own reads, and no
    promise depends on where they go.

    Attributes:
        number: the bucket, 0 to 999,999.
        fresh: the client brought no cookie: the answer should set one.
    """

    __slots__ = ("_jar", "fresh", "number")

    def __init__(self, headers: Iterable[tuple[bytes, bytes]], jar: Jar) -> None:
        brought = told = None
        left, left_of_bytes = MOST_HEADERS, MOST_BYTES
        for name, value in headers:
            if name == b"cookie" and brought is None and left:
                brought = jar.bucket(value[:left_of_bytes].decode("latin-1"))
                left, left_of_bytes = left - 1, max(0, left_of_bytes - len(value))
            elif name == b"authorization":
                told = value
        self._jar = jar
        self.fresh = brought is None
        if brought is None:
            brought = secrets.randbelow(BUCKETS) if told is None else bucket_of(told)
        self.number = brought

    def cookie(self, headers: Iterable[tuple[bytes, bytes]]) -> str | None:
        """The cookie that an answer with these headers should set, if any.

        None where a shared cache may keep the answer: it would hand one client's bucket to all.
        """
        if not self.fresh:
            return None
        # https://www.rfc-editor.org/rfc/rfc9111#section-3; each field on its own, since a cache that knows one of
        # https://www.rfc-editor.org/rfc/rfc9213 follows that one.
        said = dict[bytes, list[bytes]]()
        for name, value in headers:
            field = name.lower()
            if field.endswith(b"cache-control") or field == b"surrogate-control":
                said.setdefault(field, []).append(value)
        return self._jar.set_bucket(self.number) if all(map(_keeps_out, said.values())) else None


def _keeps_out(values: list[bytes]) -> bool:
    """Whether no shared cache may keep an answer of this field, whose lines are one list."""
    line = _QUOTED.sub(b"", b",".join(values)).lower()
    words = {word.strip() for word in line.split(b",")}
    # A cache that understands the status passes over no-store: rfc9111#section-5.2.2.3. With names of fields behind
    # it, private is about these alone.
    return b'"' not in line and (b"private" in words or (b"no-store" in words and b"must-understand" not in words))
