"""What a status page remembers: rings that have a bound, events in words, and who gets HTML."""

import re

import pytest

from lagwise import Reason, Route, events
from lagwise._decide.node import Standing
from lagwise.health.accept import prefers_html
from lagwise.health.page import document
from lagwise.health.recent import Happenings, PerSecond, Samples, Told
from lagwise.health.telling import WORDS, moved, told

# Counts


def test_a_minute_is_counted_and_no_more() -> None:
    """What is older than sixty seconds is neither counted nor kept, whatever came."""
    ring = PerSecond()
    for tenth in range(10_000):
        ring.add("fresh", tenth / 10)
    assert ring.totals(999.9) == {"fresh": 600}
    assert len(ring._counters) == 60
    assert ring.totals(1029.5) == {"fresh": 300}
    assert ring.totals(1059.0) == {}
    assert PerSecond().totals(5.0) == {}


def test_after_a_silence_nothing_old_is_counted() -> None:
    """The ring has room for sixty seconds, and seconds without a session take none: age decides, not place."""
    ring = PerSecond(seconds=3)
    for second in (0.0, 100.2, 200.4):
        ring.add("write", second)
    assert ring.totals(200.9) == {"write": 1}
    ring.add("write", 202.0)
    ring.add("fresh", 202.0)
    ring.add("fresh", 202.9)
    assert list(ring.totals(202.9).items()) == [("write", 2), ("fresh", 2)]
    assert ring.totals(203.0) == {"fresh": 2, "write": 1}


# Samples


def test_samples_have_a_bound_and_a_number() -> None:
    """The last 300 are kept, and the last number says which they are."""
    ring = Samples()
    for number in range(1000):
        ring.add(number, {"replica-1": float(number)})
    kept = ring.after(-1, ["replica-1"])["replica-1"]
    assert (len(kept), kept[0], kept[-1], ring.last) == (300, 700.0, 999.0, 999)
    assert ring.after(996, ["replica-1"]) == {"replica-1": [997.0, 998.0, 999.0]}
    assert ring.after(999, ["replica-1"]) == {"replica-1": []}
    assert ring.after(5000, ["replica-1"]) == {"replica-1": []}


def test_missed_steps_are_gaps() -> None:
    """A process that was stopped for a while shows a gap of that length, and not an unbroken line."""
    ring = Samples(most=5)
    ring.add(7, {"a": 0.1})
    ring.add(10, {"a": 0.2, "b": 3.0})
    ring.add(10, {"a": 9.0})
    ring.add(9, {"a": 9.0})
    assert ring.after(-1, ["a", "b"]) == {"a": [0.1, None, None, 0.2], "b": [None, None, None, 3.0]}
    ring.add(10**12, {"b": 1.0})
    assert ring.after(-1, ["a", "b"]) == {"a": [None] * 5, "b": [None] * 4 + [1.0]}


def test_before_the_first_sample_there_is_none() -> None:
    """An empty ring answers empty lists."""
    assert (Samples().last, Samples().after(-1, ["a"])) == (-1, {"a": []})


# Events


def happened(number: int) -> Told:
    """One of many different things."""
    return Told("changed", f"node-{number}", f"node-{number} is drained")


def test_a_hundred_different_events_are_kept() -> None:
    """The oldest goes; the latest is first."""
    ring = Happenings()
    for number in range(1000):
        ring.add(happened(number), float(number))
    kept = ring.latest()
    assert (len(kept), kept[0][0], kept[-1][0]) == (100, happened(999), happened(900))


def test_a_flood_of_one_event_pushes_no_other_out() -> None:
    """Equal events are one line with a count, and when it was first and last, also where two kinds alternate."""
    ring = Happenings(most=3)
    ring.add(happened(1), 1.0)
    for second in range(2, 1000):
        ring.add(Told("token-ignored", None, "why" if second % 2 else "why not"), float(second))
    latest = [(told.text, folded.count, folded.first, folded.last) for told, folded in ring.latest()]
    assert latest == [("why", 499, 3.0, 999.0), ("why not", 499, 2.0, 998.0), ("node-1 is drained", 1, 1.0, 1.0)]


PLANTED = "c4n4ry"
# One of each kind, with what its line must be; None for those that are counted, or told by a change of standing.
LINES: list[tuple[events.Event, Told | None]] = [
    (events.Routed(route=Route("replica-1", Reason.FRESH), write=False), None),
    (events.Refused(error="NoReplica", write=False), None),
    (events.NodeChanged(node="a", before="in-rotation", standing="drained"), None),
    (events.NodeUnreachable(node="a", error=PLANTED), None),
    (events.PositionAsked(node="a", found=True), None),
    (events.TokenBrought(), None),
    (events.TokenIssued(), None),
    (events.HeldBack(would=Route("replica-1", Reason.FRESH), waited=False, stale=0.0), None),
    (
        events.NodeRefusesConnections(node="a", error=PLANTED),
        Told("changed", "a", "a refuses new connections; those that are open are used"),
    ),
    (
        events.PositionAsked(node="a", found=False),
        Told("position", "a", "A commit on a got no position: its client reads from the primary for sticky_window"),
    ),
    (events.Retried(node="a", failure="lost"), Told("retried", "a", "A read failed on a and ran again (lost)")),
    (
        events.TokenIgnored(why="not signed by a secret of this application"),
        Told("token-ignored", None, "A client's token was ignored: not signed by a secret of this application"),
    ),
    (
        events.Promoted(node="b", before="a", timeline=2),
        Told("promoted", "b", "b was promoted: it is the primary in the place of a, on timeline 2"),
    ),
    (
        events.Promoted(node="b", before="b", timeline=3),
        Told("promoted", "b", "b was promoted: it is the primary, on timeline 3"),
    ),
    (
        events.TwoPrimaries(nodes=("a", "b")),
        Told("cluster", None, "Several nodes say that they are the primary, none of them is used: a, b"),
    ),
    (
        events.ClusterUnconfirmed(nodes=("a",), system=7),
        Told("cluster", None, "Nothing confirms that these nodes belong to the cluster, none of them is used: a"),
    ),
    (
        events.ClusterChanged(believed=7, system=8),
        Told("cluster", None, "The nodes are of another cluster than before"),
    ),
    (
        events.TimelineAbandoned(believed=3, timeline=2),
        Told("cluster", None, "A promotion was undone: timeline 2 is current again, and 3 is given up"),
    ),
    (
        events.DatabaseChanged(believed=16385, database=16390),
        Told("cluster", None, "The application's database is another one than before: it was made anew, or renamed"),
    ),
    (
        events.BeliefContradicted(believed=(7, 3), said=(7, 2), for_seconds=5.0),
        Told(
            "cluster",
            None,
            "Every node that answers contradicts what is believed of the cluster; it gives way in 5 s",
        ),
    ),
]


@pytest.mark.parametrize(("event", "line"), LINES, ids=[type(event).__name__ for event, _ in LINES])
def test_events_in_words(event: events.Event, line: Told | None) -> None:
    """A sentence of names, reasons and numbers; the server's own words, which the log has, are in none."""
    assert told(event) == line
    assert PLANTED not in repr(told(event))


def test_no_kind_of_event_is_forgotten() -> None:
    """Each kind of `lagwise.events` has its line here, or stands here as one that has none."""
    kinds = {one for name in events.__all__ if isinstance(one := getattr(events, name), type)}
    assert kinds - {events.Event} == {type(event) for event, _ in LINES}


def test_standings_in_words() -> None:
    """Out of rotation is evicted, back is returned, and an error is shown by its class where a node is unreachable."""
    rotation, gone = Standing.IN_ROTATION, Standing.UNREACHABLE
    assert moved("a", rotation, gone, "OSError") == Told(
        "evicted", "a", "a left the rotation: it is unreachable (OSError)"
    )
    assert moved("a", gone, rotation, None) == Told("returned", "a", "a is back in rotation")
    assert moved("a", Standing.PRIMARY, rotation, None) == Told("changed", "a", "a is in rotation")
    assert moved("a", rotation, Standing.LAGGING, None) == Told(
        "evicted", "a", "a left the rotation: it lags by more than max_lag"
    )
    assert moved("a", rotation, Standing.PRIMARY, None) == Told("changed", "a", "a is the primary")
    assert moved("a", Standing.PRIMARY, gone, "OSError") == Told("changed", "a", "a is unreachable (OSError)")
    assert set(Standing) == set(WORDS)


# HTML or JSON

CHROME = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        (CHROME, True),
        ("text/html", True),
        ("TEXT/HTML ; Q=0.9 , application/json;q=0.8", True),
        ("text/*", True),
        ("text/html;level=1;q=0.4, application/json;q=0.3", True),
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("application/health+json, application/json", False),
        ("text/html, application/json", False),
        ("text/html, */*", False),
        ("text/html;q=0.5, application/*", False),
        ("text/html;q=0.5, application/health+json;q=0.6", False),
        ("text/html;q=0", False),
        ("text/html;q=0, text/*", False),
        ("text/html;q=nan", False),
        ("text/html;q=7", False),
        ("text/html;q=", False),
        ("image/png", False),
        (",;,;q=1,/", False),
        ("text/plain," * 500 + "text/html", False),
    ],
)
def test_html_only_for_clients_that_prefer_it(accept: str, html: bool) -> None:
    """By q-values and the most specific range; JSON where both are as welcome, and past the bound of what is read."""
    assert prefers_html(accept) is html


# The file


def test_the_page_is_one_small_file_that_asks_nobody_else() -> None:
    """Below 60 kB; no address but that of SVG's namespace, nothing to load, nothing that makes markup of text."""
    text, _ = document()
    assert len(text.encode()) < 60_000
    assert set(re.findall(r"\w+://[^\s'\"`)>]*", text)) == {"http://www.w3.org/2000/svg"}
    assert re.findall(r"""\ssrc=|@import|url\(|(?:href|action)=["'](?!data:)""", text) == []
    makers = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|DOMParser|setTimeout\(['\"`]"
    assert re.findall(makers, text) == []
    assert re.findall(r"<[^>]+\s(?:style|on\w+)=", text) == []


def words_of(constant: str) -> set[str]:
    """The keys of a table in the page's script."""
    table = document()[0].partition(f"const {constant} = {{")[2].partition("\n};")[0]
    return set(re.findall(r'^  "([a-z-]+)":', table, re.MULTILINE))


def test_the_page_explains_every_word() -> None:
    """Each reason and each standing has an explanation for people."""
    assert set(Reason) <= words_of("REASONS")
    assert set(Standing) == words_of("STANDINGS")


def test_the_page_runs_under_a_strict_policy() -> None:
    """Its own script and style by their hashes, and its own address; no other code, frame, form or markup."""
    policy = dict(part.strip().partition(" ")[::2] for part in document()[1].split(";"))
    script, style = policy.pop("script-src"), policy.pop("style-src")
    assert re.fullmatch(r"'sha256-[A-Za-z0-9+/]{43}='", script)
    assert re.fullmatch(r"'sha256-[A-Za-z0-9+/]{43}='", style)
    assert policy == {
        "default-src": "'none'",
        "img-src": "data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
