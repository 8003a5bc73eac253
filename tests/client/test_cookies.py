"""Cookies that cannot regress: a little browser, answers in any order, and the greatest token always there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lagwise import LSN, CausalToken
from lagwise._client.cookies import NAME, Jar
from lagwise._decide.token import Position, merged
from tests.kit.browser import Browser
from tests.kit.worlds import tokens

AGE = 5


@dataclass
class Answer:
    """One that is on its way."""

    token: CausalToken
    set_cookies: list[str]


class Client(RuleBasedStateMachine):
    """One browser, requests in parallel, answers in any order or lost; each may have written, or not."""

    def __init__(self) -> None:
        super().__init__()
        self.browser = Browser()
        self.requests: list[str] = []
        self.answers: list[Answer] = []
        self.given = CausalToken()
        self.head = count(1)

    @initialize(clusters=st.integers(1, 3))
    def begin(self, clusters: int) -> None:
        """So many databases are behind the application."""
        self.clusters = clusters

    @rule()
    def ask(self) -> None:
        """A request leaves with all cookies there are now."""
        self.requests.append(self.browser.header())

    @precondition(lambda self: self.requests)
    @rule(which=st.integers(0, 99), cluster=st.integers(1, 3), in_doubt=st.booleans())
    def write(self, which: int, cluster: int, in_doubt: bool) -> None:
        """The server handles any of the requests: its token is what came, and a write that is later than any."""
        pairs = Jar().brought(self.requests.pop(which % len(self.requests)), 1024)
        now = next(self.head)
        position = Position(system=1 + cluster % self.clusters, in_doubt_at=now)
        if not in_doubt:
            position = Position(system=position.system, timeline=1, lsn=LSN(now), issued_at=now)
        token = merged(CausalToken.parse(text) for _, text in pairs).including([position])
        self.answers.append(Answer(token, Jar().set(str(token), [name for name, _ in pairs], AGE)))

    @precondition(lambda self: self.requests)
    @rule(which=st.integers(0, 99))
    def read(self, which: int) -> None:
        """Nothing was written: the answer sets nothing."""
        self.requests.pop(which % len(self.requests))

    @precondition(lambda self: self.answers)
    @rule(which=st.integers(0, 99))
    def arrive(self, which: int) -> None:
        """Any of the answers arrives: from here on the client has been told."""
        answer = self.answers.pop(which % len(self.answers))
        self.browser.store(answer.set_cookies)
        self.given = self.given.merge(answer.token)

    @precondition(lambda self: self.answers)
    @rule(which=st.integers(0, 99))
    def lose(self, which: int) -> None:
        """Any of the answers is lost on the way."""
        self.answers.pop(which % len(self.answers))

    @invariant()
    def nothing_that_was_given_is_forgotten(self) -> None:
        """The promise: whatever the client has been told of is in its cookies, or something greater."""
        carried = self.browser.carries()
        assert carried.merge(self.given) == carried

    @invariant()
    def the_applications_own_cookies_stay(self) -> None:
        """Neither read nor removed."""
        assert self.browser.cookies["session"] == "theirs"
        assert self.browser.cookies["lagwise-theme"] == "dark"


TestBrowser = Client.TestCase


def test_a_single_cookie_would_regress() -> None:
    """What the slots are for: the older answer arrives last. With the plain name alone the newer write is forgotten."""
    browser, jar = Browser(), Jar()
    older, newer = (CausalToken.of([Position(system=7, timeline=1, lsn=LSN(n), issued_at=n)]) for n in (1, 2))
    for token in (newer, older):
        browser.store(jar.set(str(token), [], AGE))
    assert browser.cookies[NAME] == str(older)
    assert browser.carries() == newer


@given(st.lists(tokens(3).filter(bool), min_size=1, max_size=6))
def test_one_request_at_a_time_leaves_one_slot(written: list[CausalToken]) -> None:
    """An answer tidies up what its request brought: a client that waits for answers carries two cookies."""
    browser, seen = Browser(cookies={}), CausalToken()
    for token in written:
        pairs = Jar().brought(browser.header(), 1024)
        seen = merged(CausalToken.parse(text) for _, text in pairs).merge(token)
        browser.store(Jar().set(str(seen), [name for name, _ in pairs], AGE))
    assert set(browser.cookies.values()) == {str(seen)}
    assert len(browser.cookies) == 2


def test_the_same_token_again_does_not_remove_itself() -> None:
    """An answer that has nothing newer keeps the slot its request brought."""
    jar, browser = Jar(), Browser(cookies={})
    browser.store(jar.set("text", [], AGE))
    before = dict(browser.cookies)
    browser.store(jar.set("text", list(before), AGE))
    assert browser.cookies == before


@pytest.mark.parametrize(
    ("attributes", "says"),
    [
        ({"name": "__Host-x"}, "browsers drop a cookie called __host-... that is not secure: give secure=True"),
        ({"name": "__Host-x", "secure": True, "path": "/app"}, "browsers drop a cookie called __host-... that has"),
        (
            {"name": "__host-x", "secure": True, "domain": "example.org"},
            "browsers drop a cookie called __host-... that",
        ),
        ({"name": "__Secure-x"}, "browsers drop a cookie called __secure-... that is not secure: give secure=True"),
        ({"name": "__SECURE-X", "domain": "example.org"}, "browsers drop a cookie called __secure-... that is not"),
        ({"name": "__Http-x"}, "browsers drop a cookie called __http-... that is not secure"),
        ({"path": "app"}, 'path must begin with "/"'),
        ({"path": ""}, 'path must begin with "/"'),
        ({"path": None}, 'path must begin with "/", and have no ";" in it, not None'),
        ({"path": "/; Domain=example.org"}, 'path must begin with "/", and have no ";" in it'),
        ({"path": "/\r\nSet-Cookie: a=b"}, 'path must begin with "/"'),
        ({"domain": "example.org; Secure"}, "domain must be the name of a host"),
    ],
)
def test_a_cookie_that_a_browser_would_drop_is_refused(attributes: dict[str, Any], says: str) -> None:
    """A client that is given it would bring no token, and miss its own writes; so no middleware is made with it."""
    with pytest.raises(ValueError, match=f"^{re.escape(says)}"):
        Jar(**attributes)


@pytest.mark.parametrize("name", ["__Host-x", "__Secure-x", "__Http-x"])
def test_a_prefix_is_taken_where_a_browser_takes_it(name: str) -> None:
    """The cookies of a token, of a crowd and of a bucket begin with it, and fulfil what it promises."""
    jar = Jar(name=name, secure=True)
    for cookie in [*jar.set("AAAA.BBBB", [], AGE), *jar.set_in_crowd("AAAA.BBBB", [], AGE), jar.set_bucket(42)]:
        assert cookie.startswith(name)
        assert cookie.endswith("; HttpOnly; Path=/; SameSite=Lax; Secure")


@pytest.mark.parametrize(
    ("jar", "attributes"),
    [
        (Jar(), "Max-Age=5; HttpOnly; Path=/; SameSite=Lax"),
        (Jar(path="/app"), "Max-Age=5; HttpOnly; Path=/app; SameSite=Lax"),
        (
            Jar(domain="example.org", secure=True),
            "Max-Age=5; HttpOnly; Path=/; SameSite=Lax; Domain=example.org; Secure",
        ),
    ],
)
def test_every_cookie_has_the_attributes_it_is_removed_by(jar: Jar, attributes: str) -> None:
    """A browser removes a cookie only of the same path and domain; no script reads any of them."""
    first = jar.set("one", [], 5)
    assert [cookie.partition("; ")[2] for cookie in first] == [attributes, attributes]
    slot = first[1].partition("=")[0]
    second = jar.set("two", [NAME, slot], 5)
    assert second[2] == f"{slot}=; {attributes.replace('Max-Age=5', 'Max-Age=0')}"
    assert len(second) == 3


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", []),
        (";;; =", []),
        ("lagwise=a", [("lagwise", "a")]),
        ("x=1; lagwise=a; y=2; lagwise=b", [("lagwise", "a"), ("lagwise", "b")]),
        ("lagwise-0123abcd=a;lagwise=b", [("lagwise-0123abcd", "a"), ("lagwise", "b")]),
        ("lagwise=a=b", [("lagwise", "a=b")]),
        ("lagwise", [("lagwise", "")]),
        ("lagwise-0123abc=a; lagwise-0123abcde=a; lagwise-=a; lagwise-0123abc\u00e9=a; lagwise-0123ab d=a", []),
        ("Lagwise=a; lagwise2=a; xlagwise=a; lagwise-theme-=a", []),
    ],
)
def test_only_our_own_cookies_are_read(header: str, expected: list[tuple[str, str]]) -> None:
    """Several of one name, for several paths or domains, all count; what only looks alike is the application's."""
    assert Jar().brought(header, 1024) == expected


@given(st.text())
def test_any_header_has_an_answer(header: str) -> None:
    """Never an exception, and every name that is read may be given to `Jar.set`."""
    names = [name for name, _ in Jar().brought(header, 1024)]
    answer = Jar().set("text", names, AGE)
    kept = {NAME, answer[1].partition("=")[0], *filter(Jar().is_crowd, names)}
    assert len(answer) == 2 + min(len(set(names) - kept), 16)
