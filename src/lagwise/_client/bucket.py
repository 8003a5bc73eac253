"""In which bucket a client is, while a Router lets only a share of the clients read from replicas."""

import re
import secrets
from collections.abc import Iterable

from lagwise._client.cookies import MOST_BYTES, MOST_HEADERS, Jar
from lagwise._decide.offload import BUCKETS, bucket_of

_SHARED = re.compile(rb"\b(?:public|s-maxage)\b", re.I)


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
        if not self.fresh or any(name.lower() == b"cache-control" and _SHARED.search(value) for name, value in headers):
            return None
        return self._jar.set_bucket(self.number)
