"""A request with any number of headers costs no more than one with a thousand."""

from collections.abc import Iterator

import pytest

from lagwise import LSN
from lagwise._client import brought
from lagwise._client.brought import Reader
from lagwise._client.bucket import Bucket
from lagwise._client.cookies import MOST_HEADERS, Jar
from lagwise._client.signature import Seal
from lagwise._decide.offload import bucket_of
from lagwise._decide.token import CausalToken, Position

FLOOD = 90_909  # of "cookie: a" in a megabyte
TOKEN = CausalToken.of([Position(system=7, timeline=1, lsn=LSN(1000), issued_at=1_700_000_000)])


def reader() -> tuple[Reader, str]:
    """A Reader, and a token that it knows."""
    seal = Seal("for tests only")
    return Reader(seal, Jar()), seal.sealed(TOKEN)


class Flood:
    """Short headers of one name, counted as they are looked at."""

    def __init__(self, name: bytes, *first: tuple[bytes, bytes], value: bytes = b"a") -> None:
        self.looked_at = 0
        self._headers = [*first, *[(name, value)] * FLOOD]

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        for each in self._headers:
            self.looked_at += 1
            yield each


@pytest.mark.parametrize("name", [b"cookie", b"lagwise-token"])
def test_a_thousand_headers_are_looked_at(name: bytes) -> None:
    """The next ones are not even decoded; other headers are passed over."""
    tokens, _ = reader()
    flood = Flood(name, (b"host", b"x"))
    assert tokens.read(flood) == brought.NOTHING
    assert flood.looked_at == MOST_HEADERS + 1


@pytest.mark.parametrize("place", [0, MOST_HEADERS - 1])
def test_a_token_among_them_is_found(place: int) -> None:
    """In the first header, and in the last one that is looked at."""
    tokens, text = reader()
    headers = [(b"cookie", b"theme=dark")] * MOST_HEADERS
    headers[place] = (b"cookie", f"lagwise={text}".encode())
    assert tokens.read(headers).token == TOKEN


def test_cookies_are_counted_over_all_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred of ours in each header: a thousand are looked at, and not a thousand of each."""
    tokens, text = reader()
    seen: list[str] = []

    def holds(_: Jar, name: str, text: str) -> bool:
        seen.append(text)
        return False

    monkeypatch.setattr(Jar, "holds", holds)
    tokens.read([(b"cookie", f"lagwise={text}".encode()), *[(b"cookie", b"; ".join([b"lagwise=a"] * 100))] * 500])
    assert len(seen) == 1024


def test_a_bucket_is_looked_for_in_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cookie of `offload` is read by the same bound, and the client is still known by its Authorization."""
    looked: list[str] = []
    monkeypatch.setattr(Jar, "bucket", lambda _, header: looked.append(header))
    flood = Flood(b"cookie")
    found = Bucket([*flood, (b"authorization", b"Bearer one")], Jar())
    assert len(looked) == MOST_HEADERS
    assert found.number == bucket_of(b"Bearer one")


def of_one_client(count: int) -> list[str]:
    """The tokens of a client that has written in parallel; the greatest came last."""
    seal = Seal("for tests only")
    positions = (Position(system=7, timeline=1, lsn=LSN(number), issued_at=1_700_000_000) for number in range(count))
    return [seal.sealed(CausalToken.of([position])) for position in positions]


@pytest.mark.parametrize("apart", [False, True], ids=["one header", "several"])
def test_tokens_that_are_too_many_are_a_doubt(apart: bool) -> None:
    """Sixteen are read, and the greatest counts; where there is one more, the client reads from the primary."""

    def seen(texts: list[str]) -> CausalToken:
        values = texts if apart else [", ".join(texts)]
        token = reader()[0].read([(b"lagwise-token", value.encode()) for value in values]).token
        assert token is not None
        return token

    assert str(seen(of_one_client(16)).position(7)) == "0/F on timeline 1 of 7"
    assert seen(of_one_client(16)).position(0) is None
    assert seen(of_one_client(17)).position(0) is not None


def test_texts_that_are_no_tokens_are_no_doubt() -> None:
    """However many they are: only a client that has sixteen tokens of this application can send more of them."""
    forged = [text[:-1] + "!" for text in of_one_client(20)]
    for texts in (forged, [of_one_client(1)[0], *forged], [*of_one_client(16), "", "a"]):
        token = reader()[0].read([(b"lagwise-token", ",".join(texts).encode())]).token
        assert token is None or token.position(0) is None
