"""How a token travels over HTTP: who gets one, in which headers, and what comes of those that come back."""

import math
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import JSONResponse, RedirectResponse
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from lagwise import Policy, Router
from lagwise._client.signature import Seal
from lagwise.fastapi import CausalityMiddleware, ReadSession, WriteSession, lifespan, writes
from lagwise.testing import Cluster, wait_until
from tests.kit.http import (
    SECRET,
    ASGIApp,
    Asking,
    application,
    carries_nothing,
    committed,
    cookie_of,
    cookies_set,
    http,
    insert,
    items,
    names,
    opened,
    reason_of,
    serving,
    with_items,
)
from tests.kit.routers import both_in_rotation, patient, router, stand_still, steady

# What is set


@pytest.mark.parametrize(("window", "age"), [(5.0, "3601"), (600.2, "6003"), (0.3, "3601")])
async def test_a_post_sets_cookie_and_header(cluster: Cluster, window: float, age: str) -> None:
    """HttpOnly, SameSite=Lax, Path=/, Max-Age an hour at least, not Secure; and the same text in the header."""
    assert math.ceil(10 * window) < int(age)
    db = router(cluster, Policy(max_lag=0.2, sticky_window=window, probe_timeout=5))
    async with serving(items(db)) as client:
        written = await client.post("/items/cookie")
    cookie = cookie_of(written)
    assert cookie is not None
    assert cookie.value == written.headers["lagwise-token"]
    assert len(cookie.value) <= 120
    assert {key: str(value).lower() for key, value in cookie.items() if value} == {
        "httponly": "true",
        "max-age": age,
        "path": "/",
        "samesite": "lax",
    }
    assert written.headers["cache-control"] == "private"
    assert "lagwise-route" not in written.headers


async def test_secure_path_and_domain_are_options(cluster: Cluster) -> None:
    """`secure=True` marks the cookie Secure; path and domain are as given."""
    db = steady(cluster)
    app = items(db, secure=True, path="/items", domain="example.org")
    async with serving(app) as client:
        cookie = cookie_of(await client.post("/items/secure"))
    assert cookie is not None
    assert [cookie["secure"], cookie["path"], cookie["domain"]] == [True, "/items", "example.org"]


async def test_a_get_sets_nothing(cluster: Cluster) -> None:
    """Not even where it brought a token: a read tells nothing new, and a shared cache may keep it."""
    db = steady(cluster)
    async with serving(items(db)) as client:
        await client.post("/items/read-back")
        assert client.cookies.get("lagwise")
        assert carries_nothing(await client.get("/items/read-back"))
        client.cookies.clear()
        assert carries_nothing(await client.get("/items/read-back"))


@pytest.mark.parametrize("said", ["no-store", "public, max-age=60"])
async def test_the_applications_cache_control_stays(cluster: Cluster, said: str) -> None:
    """Where the application says who may keep the answer, nothing is added."""
    db = steady(cluster)
    app = application(db)

    @app.post("/")
    async def create(session: WriteSession) -> JSONResponse:
        await insert(session, "cached")
        return JSONResponse({}, headers={"Cache-Control": said})

    async with serving(app) as client:
        written = await client.post("/")
    assert (written.headers.get_list("cache-control"), cookie_of(written) is not None) == ([said], True)


async def test_the_applications_own_cookies_stay(cluster: Cluster) -> None:
    """The token's cookie comes beside the others, not instead of them."""
    db = steady(cluster)
    app = application(db)

    @app.post("/")
    async def create(session: WriteSession) -> JSONResponse:
        await insert(session, "cookies")
        response = JSONResponse({})
        response.set_cookie("theme", "dark")
        return response

    async with serving(app) as client:
        assert cookies_set(await client.post("/"))[:2] == ["theme", "lagwise"]


async def test_a_redirect_after_post_carries_the_token(cluster: Cluster) -> None:
    """303 See Other: the page that is loaded next shows what was written."""
    db = patient(cluster)
    app = items(db)

    @app.post("/form")
    async def submit(session: WriteSession) -> RedirectResponse:
        await insert(session, "by form")
        return RedirectResponse("/items/by form", status_code=303)

    async with serving(app) as client:
        await both_in_rotation(db)
        await stand_still(cluster)
        redirected = await client.post("/form")
        assert (redirected.status_code, cookie_of(redirected) is not None) == (303, True)
        assert (await client.get(redirected.headers["location"])).json() == 1


@pytest.mark.parametrize("shown", [False, True])
async def test_the_route_header_is_opt_in(cluster: Cluster, shown: bool) -> None:
    """`route_header=True` answers node and reason of every session of the request; otherwise nothing is told."""
    db = steady(cluster)
    async with serving(items(db, route_header=shown)) as client:
        await both_in_rotation(db)
        written = await client.post("/items/routed")
        client.cookies.clear()
        read = await client.get("/items/routed")
    assert written.headers.get("lagwise-route") == ("primary; reason=write" if shown else None)
    assert ("lagwise-route" in read.headers, read.headers.get("lagwise-route", "").endswith("; reason=fresh")) == (
        shown,
        shown,
    )


# Commit, failure, rollback


def naive(cluster: Cluster) -> FastAPI:
    """The usual recipe: a dependency with yield that commits in its exit code."""
    engine = create_async_engine(cluster.primary.direct_url)
    app = FastAPI()

    async def get_db() -> AsyncIterator[AsyncSession]:
        async with async_sessionmaker(engine).begin() as session:
            yield session

    @app.post("/items/{name}")
    async def create(name: str, session: Annotated[AsyncSession, Depends(get_db)]) -> None:
        await insert(session, name)

    app.state.engine = engine
    return app


async def test_commit_precedes_the_response(cluster: Cluster) -> None:
    """When the status line leaves, everybody sees the row; with the usual recipe nobody does yet."""
    db, watched = steady(cluster), []

    def watch(app: ASGIApp) -> ASGIApp:
        watched.append(Asking(app, cluster, "in time"))
        return watched[-1]

    async with serving(items(db), watch) as client:
        await client.post("/items/in time")
    recipe = naive(cluster)
    late = Asking(recipe, cluster, "too late")
    async with http(late) as client:
        await client.post("/items/too late")
    await recipe.state.engine.dispose()
    assert [each.seen for each in watched if each.seen] == [[(200, 1)]]
    assert late.seen == [(200, 0)]
    assert await committed(cluster, "too late") == 1


async def test_a_failed_commit_is_a_500_without_a_token(cluster: Cluster, refusing: str) -> None:
    """What the server refuses at COMMIT the client hears of; with the usual recipe it hears 200."""
    db = steady(cluster)
    async with serving(items(db)) as client:
        failed = await client.post(f"/items/{refusing}")
    recipe = naive(cluster)
    async with http(recipe) as client:
        believed = await client.post(f"/items/{refusing}")
    await recipe.state.engine.dispose()
    assert (failed.status_code, carries_nothing(failed)) == (500, True)
    assert believed.status_code == 200
    assert await committed(cluster, refusing) == 0


async def test_a_failed_commit_carries_no_token_through_a_wrapped_application_either(
    cluster: Cluster, refusing: str
) -> None:
    """Where even a 500 passes the middleware, a refused COMMIT is known to have written nothing."""
    db = steady(cluster)
    async with serving(items(db), lambda app: CausalityMiddleware(app, secret=SECRET)) as client:
        failed = await client.post(f"/items/{refusing}")
    assert (failed.status_code, carries_nothing(failed)) == (500, True)


async def test_a_rollback_sets_no_token(cluster: Cluster) -> None:
    """An HTTPException, an explicit rollback, and a session that did nothing: nothing to wait for."""
    db = steady(cluster)
    app = application(db)

    @app.post("/raises")
    async def raises(session: WriteSession) -> None:
        await insert(session, "rolled back")
        raise HTTPException(409)

    @app.post("/rolls-back")
    async def rolls_back(session: WriteSession) -> None:
        await insert(session, "rolled back")
        await session.rollback()

    @app.post("/does-nothing")
    async def does_nothing(session: WriteSession) -> None:
        pass

    @app.post("/invalid")
    async def invalid(session: WriteSession, number: int) -> None:
        raise AssertionError("never reached")

    async with serving(app) as client:
        answers = {path: await client.post(path) for path in ("/raises", "/rolls-back", "/does-nothing", "/invalid")}
    assert {path: (answer.status_code, carries_nothing(answer)) for path, answer in answers.items()} == {
        "/raises": (409, True),
        "/rolls-back": (200, True),
        "/does-nothing": (200, True),
        "/invalid": (422, True),
    }
    assert await committed(cluster, "rolled back") == 0


async def test_a_handled_error_after_a_commit_carries_the_token(cluster: Cluster) -> None:
    """The first of two transactions stands; the client that gets a 409 for the second reads the first."""
    db = patient(cluster)
    app = items(db)

    @app.post("/half")
    async def half(session: WriteSession) -> None:
        await insert(session, "the first half")
        await session.commit()
        await insert(session, "the second half")
        raise HTTPException(409)

    async with serving(app) as client:
        await both_in_rotation(db)
        await stand_still(cluster)
        conflict = await client.post("/half")
        assert (conflict.status_code, cookie_of(conflict) is not None) == (409, True)
        assert (await client.get("/items/the first half")).json() == 1
        assert (await client.get("/items/the second half")).json() == 0


async def test_a_crash_after_a_commit_carries_the_token_where_the_application_is_wrapped(cluster: Cluster) -> None:
    """The 500 of an unhandled error is made outside all added middleware: wrap the application to reach it."""
    db = patient(cluster)
    app = items(db)

    @app.post("/crash/{name}")
    async def crash(name: str, session: WriteSession) -> None:
        await insert(session, name)
        await session.commit()
        raise RuntimeError("after the commit")

    async with serving(app) as client:
        await both_in_rotation(db)
        crashed = await client.post("/crash/added")
        assert (crashed.status_code, carries_nothing(crashed)) == (500, True)
    async with serving(app, lambda app: CausalityMiddleware(app, secret=SECRET)) as client:
        await both_in_rotation(db)
        await stand_still(cluster)
        crashed = await client.post("/crash/wrapped")
        assert (crashed.status_code, cookie_of(crashed) is not None) == (500, True)
        assert (await client.get("/items/wrapped")).json() == 1


# What is brought


async def tokens(cluster: Cluster, db: Router, running: ASGIApp, name: str) -> tuple[str, str]:
    """An older token and a newer one, with every replica known to stand between the two writes."""
    async with http(running) as client:
        older = (await client.post(f"/items/{name}")).headers["lagwise-token"]
        await stand_still(cluster)
        floor = max(position.lsn for position in Seal(SECRET).opened(older))
        await wait_until(lambda: db.view.caught_up(floor) == 2, what="the replicas are known to show the first write")
        newer = (await client.post(f"/items/{name}")).headers["lagwise-token"]
    return older, newer


async def test_header_and_cookies_merge_by_the_greater(cluster: Cluster) -> None:
    """Whichever carrier brings the newer token, and in whichever place, it is the one that counts."""
    db = patient(cluster)
    async with opened(items(db, route_header=True)) as running:
        await both_in_rotation(db)
        older, newer = await tokens(cluster, db, running, "merged")
        carriers: dict[str, list[tuple[str, str]]] = {
            "older only": [("lagwise-token", older), ("cookie", f"lagwise={older}")],
            "header": [("lagwise-token", newer), ("cookie", f"lagwise={older}")],
            "cookie": [("lagwise-token", older), ("cookie", f"lagwise={newer}")],
            "first cookie": [("cookie", f"lagwise={newer}; lagwise={older}")],
            "last cookie": [("cookie", f"lagwise={older}; lagwise={newer}")],
            "second cookie header": [("cookie", f"lagwise={older}"), ("cookie", f"lagwise={newer}")],
            "second header": [("lagwise-token", older), ("lagwise-token", newer)],
            "folded header": [("lagwise-token", f"{newer}, {older}")],
            "among other cookies": [("cookie", f"theme=dark; lagwise={newer}; session=a=b; broken; =")],
            "beside other names": [("cookie", f"lagwise2={newer}; xlagwise={newer}")],
        }
        answers = {}
        for carrier, headers in carriers.items():
            async with http(running) as client:
                answer = await client.get("/items/merged", headers=headers)
                answers[carrier] = (answer.json(), reason_of(answer))
    assert answers == {
        **dict.fromkeys(carriers, (2, "none-caught-up")),
        "older only": (1, "caught-up"),
        "beside other names": (1, "fresh"),
    }


async def test_a_write_never_lowers_what_the_client_brought(cluster: Cluster) -> None:
    """The new token covers the old one: a response that arrives late takes nothing back."""
    db = patient(cluster)
    async with opened(items(db)) as running:
        await both_in_rotation(db)
        older, newer = await tokens(cluster, db, running, "grown")
        async with http(running) as client:
            written = await client.post("/items/grown", headers={"lagwise-token": newer})
    opening = Seal(SECRET).opened
    latest = opening(written.headers["lagwise-token"])
    assert latest.merge(opening(newer)).merge(opening(older)) == latest
    assert latest != opening(newer)


async def test_secrets_rotate(cluster: Cluster) -> None:
    """The first secret signs and all verify: a token of the old one counts until the old one is dropped."""
    db = patient(cluster)
    app = FastAPI(lifespan=lifespan(db))
    with_items(app)

    async with opened(app) as running:
        await both_in_rotation(db)
        await stand_still(cluster)

        def under(*secrets: str) -> Any:
            return http(CausalityMiddleware(running, secret=list(secrets)))

        async with under("old") as client:
            of_old = (await client.post("/items/rotated")).headers
        async with under("new", "old") as client:
            of_both = (await client.post("/items/rotated")).headers
        seen = {}
        for secrets in (("old",), ("new", "old"), ("new",)):
            for signer, headers in (("old", of_old), ("new", of_both)):
                async with under(*secrets) as client:
                    brought = {"lagwise-token": headers["lagwise-token"]}
                    seen[secrets, signer] = (await client.get("/items/rotated", headers=brought)).json()
    assert seen == {
        (("old",), "old"): 2,
        (("old",), "new"): 0,
        (("new", "old"), "old"): 2,
        (("new", "old"), "new"): 2,
        (("new",), "old"): 0,
        (("new",), "new"): 2,
    }


@pytest.mark.parametrize("secret", ["", [], ["good", ""], [b"bytes"], None])
def test_a_missing_secret_is_refused(secret: Any) -> None:
    """Without a secret anyone could write tokens: refused when the middleware is built, without repeating it."""
    with pytest.raises(ValueError, match="secret must be a non-empty string") as refused:
        CausalityMiddleware(lambda *_: None, secret=secret)  # type: ignore[arg-type]
    assert "good" not in str(refused.value)


async def test_the_token_tells_a_client_nothing_it_could_change(cluster: Cluster) -> None:
    """Every changed character makes the whole token void."""
    db = patient(cluster)
    async with opened(items(db, route_header=True)) as running:
        await both_in_rotation(db)
        _, newer = await tokens(cluster, db, running, "changed")
        reasons = set()
        for place, was in enumerate(newer):
            changed = newer[:place] + ("A" if was != "A" else "Q") + newer[place + 1 :]
            async with http(running) as client:
                reasons.add(reason_of(await client.get("/items/changed", headers={"lagwise-token": changed})))
    assert reasons == {"fresh"}


# Bookkeeping


async def test_bookkeeping_writes_leave_no_token(cluster: Cluster) -> None:
    """A page that stamps its visitor sets no cookie, may be cached as before, and keeps reading from replicas."""
    db = patient(cluster)
    app = application(db)

    @app.get("/page/{name}")
    async def page(name: str, stamps: Annotated[AsyncSession, writes(sticky=False)], session: ReadSession) -> int:
        await insert(stamps, name)
        await stamps.commit()
        return await names(session, name)

    async with serving(app) as client:
        await both_in_rotation(db)
        await stand_still(cluster)
        first, second = await client.get("/page/stamp"), await client.get("/page/stamp")
        assert (first.json(), second.json(), carries_nothing(first)) == (0, 0, True)
        assert await committed(cluster, "stamp") == 2


async def test_a_bookkeeping_write_beside_a_plain_one_leaves_its_token(cluster: Cluster) -> None:
    """One request with both: its client sees the plain write."""
    db = patient(cluster)
    app = items(db)

    @app.post("/both/{name}")
    async def both(name: str, session: WriteSession, stamps: Annotated[AsyncSession, writes(sticky=False)]) -> None:
        await insert(session, name)
        await insert(stamps, name + ", stamp")

    async with serving(app) as client:
        await both_in_rotation(db)
        await stand_still(cluster)
        assert cookie_of(await client.post("/both/order")) is not None
        assert (await client.get("/items/order")).json() == 1
