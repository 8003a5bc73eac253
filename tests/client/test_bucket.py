"""The bucket of a request's client: where it comes from, what is taken for a bucket, and when a cookie is set."""

import pytest

from lagwise._client.bucket import Bucket
from lagwise._client.cookies import Jar
from lagwise._decide.offload import BUCKETS, bucket_of

JAR = Jar()


def found(*headers: tuple[bytes, bytes]) -> Bucket:
    """The bucket of a request with these headers."""
    bucket = Bucket(headers, JAR)
    assert 0 <= bucket.number < BUCKETS
    return bucket


def test_the_cookie_says_it() -> None:
    """Among other cookies, in any of several headers, before what else the client brings; nothing is set again."""
    for cookies in (
        [b"lagwise-offload=000042"],
        [b"a=b; lagwise-offload=000042; c=d"],
        [b"a=b", b"lagwise-offload=000042"],
    ):
        bucket = found((b"authorization", b"Bearer one"), *((b"cookie", each) for each in cookies))
        assert (bucket.number, bucket.fresh, bucket.cookie([])) == (42, False, None)


@pytest.mark.parametrize(
    "value", ["", "42", "0000042", "00004x", "-00042", " 00042", "٠٠٠٠٤٢", '"000042"', "1e5000", "000042" * 10_000]
)
def test_only_six_digits_are_a_bucket(value: str) -> None:
    """Anything else is as if there were none, however long; the client gets a bucket that is one."""
    header = f"lagwise-offload={value}; x=y".encode()
    assert JAR.bucket(header.decode("latin-1")) is None
    assert found((b"cookie", header)).fresh


def test_a_program_that_keeps_no_cookies_is_known_by_its_authorization() -> None:
    """The same in each request, and another for another key; the cookie keeps it when the key is renewed."""
    one, again, other = (found((b"authorization", key)) for key in (b"Bearer 1", b"Bearer 1", b"Bearer 2"))
    assert one.number == again.number == bucket_of(b"Bearer 1") != other.number
    assert one.cookie([]) == JAR.set_bucket(one.number)


def test_a_stranger_gets_any() -> None:
    """Of 2,000 strangers a tenth is in the lowest tenth, give or take five standard deviations."""
    lowest = sum(found().number < BUCKETS / 10 for _ in range(2000))
    assert abs(lowest - 200) <= 5 * 180**0.5


@pytest.mark.parametrize(
    ("said", "set_"),
    [
        ("public, max-age=60", False), ("s-maxage=60", False), ("PUBLIC", False), ("private", True), ("no-store", True),
        ("max-age=60", False), ("max-age=5, must-revalidate", False), ("no-cache", False), ("", False),
        ("max-age=60, stale-while-revalidate=30", False), ("max-age=60,Private", True), ("No-Store , max-age=0", True),
        ("no-store, must-understand", False), ("private, no-store, must-understand", True),
        ('private="set-cookie"', False), ('x="a, private, b"', False), ('x="a, private', False),
        (r'x="\", private"', False), ("not-private", False),
    ],
)  # fmt: skip
def test_an_answer_that_a_shared_cache_may_keep_sets_none(said: str, set_: bool) -> None:
    """It would hand one client's bucket to all, and a hundredth of the clients would be all of them, or none."""
    cookie = found().cookie([(b"content-type", b"text/plain"), (b"Cache-Control", said.encode())])
    assert (cookie is not None) == set_


def test_lines_of_one_field_are_one_list() -> None:
    """And a field for one cache's eyes counts beside the one for all."""
    mine, of_the_network = (b"cache-control", b"private"), (b"CDN-Cache-Control", b"max-age=60")
    assert found().cookie([(b"cache-control", b"max-age=60"), mine]) is not None
    assert found().cookie([mine, of_the_network]) is None
    assert found().cookie([mine, (b"surrogate-control", b"max-age=60")]) is None
    assert found().cookie([mine, (b"cdn-cache-control", b"no-store")]) is not None


def test_the_cookie_is_as_those_of_the_token() -> None:
    """Beside them, with their attributes; neither is taken for the other."""
    jar = Jar(name="shop", path="/api", domain="example.org", secure=True)
    cookie = jar.set_bucket(42)
    assert cookie.startswith("shop-offload=000042; Max-Age=7776000; ")
    assert cookie.endswith(jar.set("AAAA.BBBB", (), 60)[0].partition("Max-Age=60; ")[2])
    assert jar.bucket("shop-offload=000042") == 42
    assert jar.bucket("lagwise-offload=000042") is None
    assert jar.brought("shop-offload=000042; shop=token", 1024) == [("shop", "token")]
