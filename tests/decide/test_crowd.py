"""Many answers to one client at once: no write is lost, and the cookies stay few."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from lagwise import LSN, Causality, CausalToken
from lagwise._client import known
from lagwise._client.brought import Reader
from lagwise._client.bucket import Bucket
from lagwise._client.cookies import Given, Jar
from lagwise._client.http import Message, Receive, Scope, Send
from lagwise._client.signature import Seal
from lagwise._decide.token import Position
from lagwise.asgi import CausalityMiddleware
from tests.kit.browser import Browser
from tests.kit.commits import announced

SECRET = "for tests"
WINDOW = 5.0


class Workers:
    """Processes of one application, each of which has handled nothing yet."""

    def __init__(self, count: int) -> None:
        self.lsn = 0
        self.workers = [CausalityMiddleware(self.app, secret=SECRET) for _ in range(count)]
        self.reader = Reader(Seal(SECRET), Jar())

    async def app(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Write."""
        seen = Causality.current()
        assert seen is not None
        self.lsn += 10
        position = Position(system=7, timeline=1, lsn=LSN(self.lsn), issued_at=int(time.time()))
        announced(seen, 7, WINDOW).at(position)
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def write(self, which: int, header: str) -> list[str]:
        """The Set-Cookie values of an answer by one of the workers."""
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        async def receive() -> Message:
            raise AssertionError

        headers = [(b"cookie", header.encode())] if header else []
        scope: dict[str, Any] = {"type": "http", "headers": headers, "client": ("127.0.0.1", random.randrange(60000))}
        await self.workers[which % len(self.workers)](scope, receive, send)
        return [value.decode() for name, value in sent[0]["headers"] if name == b"set-cookie"]

    def sees(self, browser: Browser, lsn: int) -> bool:
        """Whether this browser's next read is sure to see a write at this position."""
        token = self.reader.read([(b"cookie", browser.header().encode())]).token or CausalToken()
        floor = token.floor(7)
        return floor is not None and (floor.lsn >= lsn or token.in_crowd(WINDOW, time.time() + WINDOW))


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other process answers."""
    monkeypatch.setattr(known, "processes", {"primary": 1})


@pytest.fixture
def of_many(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes known that so many processes answer."""

    def make_known(processes: int) -> None:
        monkeypatch.setitem(known.processes, "primary", processes)

    return make_known


@pytest.mark.parametrize("seed", range(24))
async def test_answers_in_any_order_lose_no_write(seed: int, of_many: Callable[[int], None]) -> None:
    """After each answer that arrives, all that have arrived are seen; and what the browser sends fits into 8 KB."""
    draw = random.Random(seed)
    house, browser = Workers(workers := draw.randint(1, 16)), Browser(cookies={})
    of_many(workers)
    if seed % 2:
        browser.store(await house.write(0, browser.header()))
    for _ in range(3):
        header, burst = browser.header(), draw.choice([2, 3, 8, 9, 60, 200])
        answers = [(await house.write(number, header), house.lsn) for number in range(burst)]
        draw.shuffle(answers)
        arrived = 0
        for cookies, lsn in answers:
            assert sum(map(len, cookies)) < 4096 - 600
            browser.store(cookies)
            arrived = max(arrived, lsn)
            assert house.sees(browser, arrived)
        assert len(browser.header()) < 8000
    for _ in range(12):
        browser.store(await house.write(0, browser.header()))
    assert len(browser.cookies) <= 4


@pytest.mark.parametrize("wrote", [False, True], ids=["a new client", "one that wrote before"])
@pytest.mark.parametrize("at_once", [6, 30, 100, 200])
@pytest.mark.parametrize("workers", [1, 2, 8, 32])
async def test_requests_that_leave_while_answers_arrive(
    workers: int, at_once: int, wrote: bool, of_many: Callable[[int], None]
) -> None:
    """Each brings other cookies than the one before; yet the header leaves 2 KB of 8 to the application's own."""
    of_many(workers)
    assert await longest_header(workers, at_once, wrote) < 6000


async def test_each_process_for_itself_gives_too_many() -> None:
    """The naive bound: as many from each process as one alone may give."""
    assert await longest_header(8, 200, False) > 16_000


async def longest_header(workers: int, at_once: int, wrote: bool) -> int:
    """The most that a browser sends, which writes two hundred times and waits for so many answers at once."""
    draw, house, browser = random.Random(workers + at_once), Workers(workers), Browser(cookies={})
    if wrote:
        browser.store(await house.write(0, ""))
    left, under_way, longest = 200, list[list[str]](), 0
    while left or under_way:
        while left and len(under_way) < at_once:
            under_way.append(await house.write(draw.randrange(workers), browser.header()))
            left -= 1
        for _ in range(draw.randint(1, max(1, len(under_way) // 3))):
            browser.store(under_way.pop(draw.randrange(len(under_way))))
        longest = max(longest, len(browser.header()))
    return longest


async def test_one_slot_for_all_loses_a_write() -> None:
    """The naive bound: eight names by hash. Two answers of one name in the wrong order, and the newer write is gone."""
    lost = 0
    for number in range(0, 400, 2):
        tokens = [
            CausalToken.of([Position(system=7, timeline=1, lsn=LSN(number + one), issued_at=number + one)])
            for one in (1, 2)
        ]
        slots: dict[str, CausalToken] = {}
        for token in reversed(tokens):
            name = f"lagwise-{int(Jar().slot(str(token))[-8:], 16) % 8}"
            slots[name] = slots["lagwise"] = token
        lost += tokens[1] not in slots.values()
    assert lost > 10


async def test_one_at_a_time_never_meets_the_crowd() -> None:
    """A client that waits for its answers has two cookies, and an exact position."""
    house, browser = Workers(1), Browser(cookies={})
    for _ in range(40):
        browser.store(await house.write(0, browser.header()))
        assert not any(map(Jar().is_crowd, browser.cookies))
        assert len(browser.cookies) == 2


async def test_new_clients_one_after_the_other_are_no_crowd() -> None:
    """What brings nothing is told by its address and the like, which many may share: its limit is higher."""
    house = Workers(1)
    for _ in range(32):
        assert not any(map(Jar().is_crowd, await house.write(0, "")))


def planted(kind: str, number: int) -> str:
    """A cookie that a sibling domain has planted."""
    if kind == "short":
        return f"lagwise-{number:08x}=x"
    text = f"{number:039d}.{'A' * 43}"
    return f"{Jar().slot(text) if kind == 'named well' else f'lagwise-{number:08x}'}={text}"


@pytest.mark.parametrize("kind", ["short", "named badly", "named well"])
async def test_cookies_that_somebody_planted_are_neither_tidied_nor_in_the_way(kind: str) -> None:
    """Sixty of them: an answer is as short as ever, and the client's own token is found behind them."""
    house, browser = Workers(1), Browser(cookies={})
    browser.store(await house.write(0, ""))
    own = dict(browser.cookies)
    browser.cookies = dict(planted(kind, number).split("=", 1) for number in range(60)) | own
    assert house.sees(browser, house.lsn)
    answer = await house.write(0, browser.header())
    assert len(answer) == 3
    assert sum(map(len, answer)) < 600


def verified(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that are verified from now on."""
    texts: list[str] = []
    plain = Seal.opened

    def opened(seal: Seal, text: str) -> CausalToken:
        texts.append(text)
        return plain(seal, text)

    monkeypatch.setattr(Seal, "opened", opened)
    return texts


def noise(count: int) -> Iterable[str]:
    """Texts that look like tokens, and cookies that are named after them."""
    return (f"{number:039d}.{'A' * 43}" for number in range(count))


def test_what_is_verified_of_a_request_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A megabyte of header and a thousand cookies: 16 and 64 texts, and the client's own among the first is found."""
    seal, jar = Seal(SECRET), Jar()
    token = CausalToken.of([Position(system=7, timeline=1, lsn=LSN(5), issued_at=5)])
    own, reader = seal.sealed(token), Reader(Seal(SECRET), Jar())
    texts = verified(monkeypatch)
    header = ",".join([*noise(10), own, *noise(12_000)]).encode()
    assert reader.read([(b"lagwise-token", header)] * 3).token == token
    assert len(texts) <= 16
    texts.clear()
    cookies = [f"{jar.slot(text)}={text}" for text in noise(1000)]
    cookies.insert(30, f"{jar.slot(own)}={own}")
    brought = reader.read([(b"cookie", "; ".join(cookies).encode())])
    assert (brought.token, brought.names) == (token, (jar.slot(own),))
    assert len(texts) <= 64


@pytest.mark.parametrize("split", [False, True], ids=["one header", "several"])
@pytest.mark.parametrize("more", [0, 1])
def test_cookies_are_looked_at_up_to_a_bound(split: bool, more: int) -> None:
    """A token at the end of the first 128 KB is found, and with one byte more before it not; so is a bucket."""
    seal, jar, filler = Seal(SECRET), Jar(), b";lagwise-" * 20_000
    token = CausalToken.of([Position(system=7, timeline=1, lsn=LSN(5), issued_at=5)])

    def behind(cookie: bytes) -> list[tuple[bytes, bytes]]:
        before = filler[: 128 * 1024 - len(cookie)] + b"x" * more
        values = [before, cookie] if split else [before + cookie]
        return [(b"cookie", value) for value in values]

    own = f";{jar.slot(text := seal.sealed(token))}={text}".encode()
    assert Reader(seal, jar).read(behind(own)).token == (None if more else token)
    assert Bucket(behind(b";lagwise-offload=000007"), jar).fresh is bool(more)


def test_reading_the_headers_is_linear() -> None:
    """Sixteen times the bytes, whatever they are, are not a hundred times the time."""
    reader = Reader(Seal(SECRET), Jar())

    def took(header: bytes, value: bytes) -> float:
        began = time.process_time()
        reader.read([(header, value)])
        return time.process_time() - began

    for header, piece in (
        (b"lagwise-token", b","),
        (b"cookie", b";"),
        (b"cookie", b"; "),
        (b"cookie", b" "),
        (b"cookie", b"lagwise"),
        (b"cookie", b";lagwise-"),
        (b"cookie", b";lagwise-0123abcd=x"),
    ):
        small, large = (piece * (size // len(piece)) for size in (1 << 18, 1 << 22))
        assert took(header, large) < 100 * max(took(header, small), 0.001)


def test_what_arrived_together_counts_together() -> None:
    """However late each is answered; those that arrive ten seconds later are counted anew."""
    given_ = Given()
    assert [given_.another("one", 32, at / 100) for at in range(200)].count(True) == 32
    assert [given_.another("one", 32, 10.5 + at / 100) for at in range(200)].count(True) == 32
    assert not given_.another("one", 32, 0.5)


def test_the_memory_of_what_was_given_is_bounded() -> None:
    """So many clients, and the least recent are forgotten."""
    given_ = Given(clients=10)
    assert [given_.another("one", 2, 0.0) for _ in range(3)] == [True, True, False]
    assert given_.another("one", 2, 10.5)
    for number in range(1000):
        given_.another(number, 2, 11.0)
    assert len(given_._given) == 10


@pytest.mark.parametrize("cookie", ["", "a b", "a=b", "a;b", "é", "x" * 100])
def test_a_cookie_has_a_name(cookie: str) -> None:
    """One that a browser takes."""
    with pytest.raises(ValueError, match="cookie must be a name"):
        CausalityMiddleware(lambda *_: None, secret="s", cookie=cookie)  # type: ignore[arg-type]


def test_two_secrets_do_not_overwrite_each_others_crowd() -> None:
    """Two services on one host, or one whose secret is being rotated: both cookies stay, and both are read."""
    token = CausalToken.of([Position(system=7, timeline=1, lsn=LSN(5), issued_at=5)]).crowded(9)
    old, new = Seal("old"), Seal("new", "old")
    browser = Browser(cookies={})
    for seal, seen in (old, token), (new, token.crowded(7)), (Seal("another service"), token.crowded(99)):
        jar = Jar(key=seal.mark)
        browser.store(jar.set_in_crowd(seal.sealed(seen), browser.cookies, 5))
    assert len(browser.cookies) == 4
    brought = Reader(new, Jar(key=new.mark)).read([(b"cookie", browser.header().encode())])
    assert (brought.token, brought.slots) == (token, 0)


def test_two_names_do_not_see_each_other() -> None:
    """`cookie="orders"` reads and sets its own, not `orders-archive`'s."""
    orders = Jar(name="orders")
    assert orders.brought("lagwise=1; orders=2; orders-archive=3; orders-0123abcd=4; xorders=5", 1024) == [
        ("orders", "2"),
        ("orders-0123abcd", "4"),
    ]
