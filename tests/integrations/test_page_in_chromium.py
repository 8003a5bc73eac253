"""The status page in a browser: it says what is so, soon; to everybody; and never keeps saying what was."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import text

from lagwise import Policy, Router
from lagwise.fastapi import health_router, lifespan
from lagwise.testing import Cluster, wait_until
from tests.kit.chromium import AXE, DESKTOP, PHONE, PROGRAM, chromium, looking
from tests.kit.http import ASGIApp, Message, Receive, Scope, Send
from tests.kit.routers import both_in_rotation, router
from tests.kit.serving import served

pytest.importorskip("playwright", reason="playwright is not installed: uv sync --group integrations")
pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason="Chromium is not installed: bash .ci/install")

POLICY = Policy(probe_interval=0.5, probe_timeout=2.0, max_lag=1.5, sticky_window=1.5)


# Whether what the page has put together for a process is what that process has, for two answers.
KEPT_APART = """async () => {
  const same = [];
  for (const _ of [1, 2]) {
    const told = await (await fetch(location.pathname, {headers: {Accept: "application/json"}})).json();
    const kept = pasts.get(told.instance).seconds["replica-1"], all = told.staleness.seconds["replica-1"];
    same.push(kept.length > 1 && JSON.stringify(all.slice(0, kept.length)) === JSON.stringify(kept));
  }
  return same;
}"""


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Any]:
    """One browser for all tests of this file; each looks at pages of its own."""
    async with chromium() as browser:
        yield browser


def paged(db: Router) -> FastAPI:
    """An application that shows how it is."""
    app = FastAPI(lifespan=lifespan(db))
    app.include_router(health_router(db, page=True), prefix="/health")
    return app


class Counting:
    """Counts the answers that a page got, and holds back those that come after `most` of the kind that is awaited."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.answers = 0
        self.awaited: Callable[[Any], bool] = lambda _: False
        self.most = 0
        self.free = asyncio.Event()
        self.free.set()
        self._found = 0

    def hold_after(self, most: int, awaited: Callable[[Any], bool]) -> None:
        """Let through what is not awaited, and `most` answers that are."""
        self.most, self.awaited, self._found = most, awaited, 0
        self.free.clear()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kept: list[Message] = []

        async def keep(message: Message) -> None:
            kept.append(message)

        await self.app(scope, receive, keep if scope["type"] == "http" else send)
        if not kept:
            return
        if (body := kept[-1].get("body", b"")).startswith(b"{"):
            self.answers += 1
            self._found += self.awaited(json.loads(body))
            if self._found > self.most:
                await self.free.wait()
        for message in kept:
            await send(message)


@asynccontextmanager
async def shown(db: Router) -> AsyncIterator[tuple[str, Counting]]:
    """The address of a page whose Router sees both replicas in rotation."""
    app = Counting(paged(db))
    async with served(app) as url:
        await both_in_rotation(db)
        try:
            yield f"{url}/health/", app
        finally:
            app.free.set()


async def use(db: Router) -> None:
    """Reads and writes, so that there is something to show."""
    for _ in range(5):
        async with db.read() as session:
            await session.execute(text("SELECT 1"))
    async with db.write.begin() as session:
        await session.execute(text("INSERT INTO item (name) VALUES ('shown')"))


async def test_a_replica_that_stands_still_is_shown_at_once(cluster: Cluster, browser: Any) -> None:
    """From when it lags, two answers at most, one in each probe interval, until the page says so; then it is back."""
    db = router(cluster, POLICY)
    async with shown(db) as (url, app), looking(browser, url) as look:
        await look.says("#word", "All is well")
        await look.says("#replicas > li", "in rotation")
        topology = "Writes go to primary, on timeline 1. Reads may use 2 of 2 other nodes."
        assert await look.text("#topology") == topology
        app.hold_after(2, lambda told: told["nodes"]["replica-1"]["standing"] == "lagging")
        await cluster.pause_replay("replica-1")
        await cluster.primary.execute("INSERT INTO item (name) VALUES ('not shown yet')")
        await look.says("#replicas > li:has(h4:text-is('replica-1'))", "lagging")
        await look.says("#notes li", "replica-1 lags by more than max_lag")
        assert "1 of 2" in await look.text("#topology")
        app.free.set()
        await look.says("#list > li[data-kind=evicted]", "replica-1 left the rotation: it lags by more than max_lag")
        past = "svg[aria-label^='Staleness of replica-1 over the last 5 min'] path.over"
        await wait_until(lambda: look.page.locator(past).get_attribute("d"), what="its line is past the bound")
        await cluster.resume_replay("replica-1")
        await look.says("#word", "All is well")
        await look.says("#list > li[data-kind=returned]", "replica-1 is back in rotation")


async def test_a_primary_that_is_gone_is_shown_at_once(cluster: Cluster, browser: Any) -> None:
    """Two answers at most, and the page says that writes are refused; the primary's card is not among the healthy."""
    db = router(cluster, Policy(probe_interval=0.5, probe_timeout=0.5))
    async with shown(db) as (url, app), looking(browser, url) as look:
        await look.says("#primary > li", "primary")
        app.hold_after(2, lambda told: told["primary"] is None)
        await cluster.cut("primary")
        await look.says("#headline[data-as=fail] #word", "Writes are refused")
        await look.says("#summary", "No primary is in sight: writes are refused, reads are served by replicas")
        await look.says("#none", "No primary is in sight")
        await look.says("#apart > li[data-as=bad]", "unreachable")
        assert await look.page.locator("#primary > li").count() == 0
        app.free.set()
        await cluster.heal()
        await look.says("#word", "All is well")


async def test_an_application_that_is_gone_is_never_green(cluster: Cluster, browser: Any) -> None:
    """It closes its Router, answers nothing more, or is gone: the page says so, and how old is what it shows."""
    db = router(cluster, POLICY)
    async with shown(db) as (url, app), looking(browser, url) as look:
        await look.says("#word", "All is well")
        app.hold_after(0, lambda _: True)  # it accepts connections, and says nothing
        await look.says("#headline[data-as=silent] #word", "No answer")
        await look.says("#age", "ago")
        assert await look.page.locator("main[data-old]").count() == 1
        assert "no answer" in await look.page.title()
        app.free.set()
        await look.says("#headline[data-as=pass] #word", "All is well")
        assert await look.page.locator("main[data-old]").count() == 0
        await db.__aexit__(None, None, None)
        await look.says("#headline[data-as=fail] #summary", "The Router is not open")
        await db.__aenter__()
        await look.says("#headline[data-as=pass] #word", "All is well")
    async with shown(db) as (url, _), looking(browser, url) as look:
        await look.says("#word", "All is well")
        await look.page.context.set_offline(True)
        await look.says("#headline[data-as=silent] #summary", "Its state is not known. Below is what was last heard")
        await look.page.context.set_offline(False)
        await look.says("#headline[data-as=pass] #word", "All is well")


async def test_a_monitor_that_has_ended_leaves_no_node_green(cluster: Cluster, browser: Any) -> None:
    """The application answers, and nothing is learned any more: each node says that it was not read lately."""
    db = router(cluster, Policy(probe_interval=0.1, probe_timeout=0.3))
    async with shown(db) as (url, _), looking(browser, url) as look:
        await look.says("#primary > li[data-as=good]", "primary")
        assert db._nodes.monitor._task is not None
        db._nodes.monitor._task.cancel()
        await look.says("#headline[data-as=fail] #summary", "The monitor has ended")
        await look.says("#primary > li[data-as=bad]", "not read lately")
        await look.says("#replicas > li[data-as=bad]", "not read lately")
        assert await look.page.locator("li.card[data-as=good]").count() == 0


async def test_something_else_that_answers_is_not_believed(cluster: Cluster, browser: Any) -> None:
    """A login, or a proxy's error: the status code is shown, and nothing of it is taken for the application's word."""
    db = router(cluster, POLICY)
    async with shown(db) as (url, _), looking(browser, url) as look:
        await look.says("#word", "All is well")
        await look.page.route(
            "**/*", lambda route: route.fulfill(status=502, content_type="text/html", body="<h1>no</h1>")
        )
        await look.says("#headline[data-as=silent] #summary", "HTTP status 502")
        await look.page.unroute("**/*")
        await look.says("#headline[data-as=pass] #word", "All is well")


async def test_it_asks_its_own_address_alone_and_runs_under_its_policy(cluster: Cluster, browser: Any) -> None:
    """No violation, no error, no other address; and the policy is in force: markup cannot be made of text."""
    db = router(cluster, POLICY)
    async with shown(db) as (url, app), looking(browser, url) as look:
        await use(db)
        await look.says("#routes > li", "fresh")
        await wait_until(lambda: app.answers > 4, what="polls")
        assert (look.complaints, look.asked) == ([], {url})
        made = "try { document.body.innerHTML = '<b>made</b>'; 'made' } catch (error) { error.name }"
        assert await look.page.evaluate(made) == "TypeError"
        assert "TrustedHTML" in look.complaints[0]


async def test_names_are_text(cluster: Cluster, browser: Any) -> None:
    """A node's name is the only free text on the page, and stays text, whatever is in it."""
    hostile = "<img src=x onerror=document.title='taken'>", "__proto__"
    nodes = [node.url for node in cluster.nodes.values()]
    db = Router(nodes[0], dict(zip(hostile, nodes[1:], strict=True)), policy=POLICY)
    async with served(paged(db)) as url, looking(browser, f"{url}/health") as look:
        for name in hostile:
            await look.says("#replicas h4", name)
        await look.says("#word", "All is well")
        assert await look.page.locator("main img").count() == 0
        assert look.complaints == []


async def test_by_keyboard_and_without_motion(cluster: Cluster, browser: Any) -> None:
    """Tab reaches the button and the list that scrolls; a paused page asks nothing, and says that it is old."""
    db = router(cluster, POLICY)
    async with shown(db) as (url, app), looking(browser, url) as look:
        await use(db)
        await look.says("#routes > li", "fresh")
        focused = "document.activeElement.id"
        await look.page.keyboard.press("Tab")
        assert await look.page.evaluate(focused) == "pause"
        await look.page.keyboard.press("Tab")
        assert await look.page.evaluate(focused) == "events"
        await look.page.keyboard.press("Shift+Tab")
        await look.page.keyboard.press("Enter")
        await look.says("#headline[data-as=paused] #word", "Paused")
        await asyncio.sleep(0.2)  # an answer under way
        before = app.answers
        await asyncio.sleep(1.2)
        assert app.answers == before
        assert await look.page.evaluate("document.getAnimations().length") == 0
        await look.page.keyboard.press("Enter")
        await look.says("#headline[data-as=pass] #word", "All is well")


async def test_processes_that_answer_in_turn_are_told_apart(cluster: Cluster, browser: Any) -> None:
    """Two processes behind one address: the page says that there are two, and keeps their pasts apart."""
    one, other = router(cluster, POLICY), router(cluster, POLICY)
    apps, turn = (paged(one), paged(other)), 0

    async def alternating(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal turn
        turn += scope["type"] == "http"
        await apps[turn % 2](scope, receive, send)

    async with other, served(alternating) as url, looking(browser, f"{url}/health") as look:
        await look.says("#foot", "one of 2 that answer here in turn")
        await wait_until(lambda: turn > 8, what="polls")
        assert await look.page.evaluate(KEPT_APART) == [True, True]
        assert look.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
async def test_axe_finds_nothing(cluster: Cluster, browser: Any, scheme: str, viewport: dict[str, int]) -> None:
    """axe-core has nothing serious or critical to say: of a page with faults on it, and of one without an answer."""
    if not AXE.exists():
        pytest.skip("axe-core is not installed: bash .ci/install")
    db = router(cluster, Policy(probe_interval=0.5, probe_timeout=0.5))
    options = {"color_scheme": scheme, "viewport": viewport, "bypass_csp": True}
    async with shown(db) as (url, _), looking(browser, url, **options) as look:
        await use(db)
        db.drain("replica-2")
        await cluster.cut("replica-1")
        await look.says("#list > li", "replica-1 left the rotation: it is unreachable")
        await look.page.evaluate(AXE.read_text())

        async def found() -> list[str]:
            result = await look.page.evaluate("axe.run()")
            serious = [one for one in result["violations"] if one["impact"] in {"serious", "critical"}]
            return [f"{one['id']}: {node['html']}" for one in serious for node in one["nodes"]]

        assert await found() == []
        await look.page.context.set_offline(True)
        await look.says("#word", "No answer")
        assert await found() == []
        wide = "document.documentElement.scrollWidth <= innerWidth"
        assert await look.page.evaluate(wide)
