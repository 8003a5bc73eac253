"""The ASGI middleware that carries a client's causality from one request to the next."""

import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence

from lagwise._client import known
from lagwise._client.brought import Brought, Reader
from lagwise._client.causality import Causality
from lagwise._client.cookies import NAME, Given, Jar
from lagwise._client.holding import Hold, failure
from lagwise._client.http import HEADER_OF_ASGI, Message, Receive, Scope, Send
from lagwise._client.request import Request
from lagwise._client.signature import Seal
from lagwise._client.store import Principals, Store
from lagwise._decide.events import TokenIssued
from lagwise._decide.token import CausalToken
from lagwise._say import say

_SCOPE = "lagwise.causality"
_STARTS = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})
_SHUTDOWNS = frozenset({"lifespan.shutdown.complete", "lifespan.shutdown.failed"})
_ROUTE_HEADER = b"lagwise-route"
# A position stays right at any age, and a doubt is judged by the Router that reads, by its own policy. So a cookie
# lives long enough for a Router whose window is longer than that of the one that wrote.
_AT_LEAST = 3600  # seconds
_WINDOWS = 10
# The most slots that one client gets for requests that arrive within ten seconds: from all processes together, and from
# one, if it brought a token.
_SLOTS_OF_ALL, _SLOTS = 32, 8
# Seconds by which a crowd cookie is ahead of the clock: answers that arrive in the wrong order are no further apart.
# Other answers reuse that moment during the first half of this time.
_AHEAD = 60
# The headers that distinguish clients that brought no token.
_TELLING = frozenset({b"user-agent", b"cookie", b"authorization", b"x-forwarded-for", b"forwarded", b"x-real-ip"})


class CausalityMiddleware:
    """Gives every request the causal token its client brought, and every client that wrote the new one.

    Args:
        app: the application.
        secret: signs the token; of a list the first signs and all verify.
        verify_only: more secrets that verify and never sign: a new one until every worker has it, then the old one
            until its cookies have ended. docs/configuration.md has the three deployments of a rotation.
        cookie: the cookie's name; two services on one host may use one name, also with different secrets.
        hold: seconds that a response waits for the COMMIT of a write session that its request has open. The sessions
            of `lagwise.fastapi` have ended by then and are never waited for.
        secure: mark the cookie Secure: for sites served over HTTPS only.
        path, domain: of the cookie.
        route_header: answer `Lagwise-Route: replica-1; reason=caught-up`, for debugging.
        store: of `lagwise.store`: what the clients of one principal have seen, for those that bring no token.
        key: the principal of a request, from its ASGI scope: any string, or None for a request without one. Where only
            the application knows, it calls `await Causality.current().identify(key)`.

    Raises:
        ValueError: no secret, a name that no cookie can have, a negative `hold`, or a `key` without a `store`.

    A token that was forged, cut or made elsewhere is no error: the request goes on as a new client's.
    """

    __module__ = "lagwise.asgi"

    def __init__(
        self,
        app: Callable[..., Awaitable[None]],  # whatever types a framework has of its own for scopes and messages
        *,
        secret: str | Sequence[str],
        verify_only: str | Sequence[str] = (),
        cookie: str = NAME,
        hold: float = 0.1,
        secure: bool = False,
        path: str = "/",
        domain: str | None = None,
        route_header: bool = False,
        store: Store | None = None,
        key: Callable[[Scope], str | None] | None = None,
    ) -> None:
        if key is not None and store is None:
            raise ValueError("key names principals for a store: CausalityMiddleware(app, ..., store=..., key=...)")
        if not (math.isfinite(hold) and hold >= 0):
            raise ValueError(f"hold must be a number of seconds, at least 0, not {hold!r}")
        self.app = app
        self._seal = Seal(secret, verify_only)
        self._jar = Jar(name=cookie, path=path, domain=domain, secure=secure, key=self._seal.mark)
        self._reader = Reader(self._seal, self._jar)
        self._given = Given()
        self._moment = hold
        self._route_header = route_header
        self._store = store
        self._key = key
        self._warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application inside the client's causality."""
        if scope["type"] not in {"http", "websocket"} or (_SCOPE in scope and _under_way(scope)):
            await self._pass_through(scope, receive, send)
            return
        arrived = time.monotonic()
        brought = self._reader.read(scope["headers"])
        # One mutable object, reachable from whatever copies the scope or the context on the way down.
        with Causality(brought.token) as seen:
            principals = None if self._store is None else Principals(self._store, self._seal)
            request = Request(scope["headers"], self._jar, brought.untold, principals)
            seen.serve(request)
            within_starlette = "app" in scope
            scope[_SCOPE] = seen
            if principals is not None:
                if self._key is not None and (key := self._key(scope)):
                    await seen.identify(key)
                send = _covered(principals, seen, send)
            hold: Hold | None = None

            def prepare(message: Message) -> None:
                self._answer(message, seen, request, brought, scope, arrived)

            def sending(message: Message) -> Awaitable[None]:
                nonlocal hold
                if hold is not None:
                    return hold.pass_on(message)
                if message["type"] in _STARTS:
                    if self._moment and seen.writing and message["type"] == "http.response.start":
                        route = getattr(scope.get("route"), "path", "")
                        hold = Hold(send, seen, request.answer, moment=self._moment, route=route, prepare=prepare)
                        return hold.pass_on(message)
                    prepare(message)
                return send(message)

            try:
                await self.app(scope, receive, sending)
            except Exception:
                # Starlette around this middleware has not heard of the start, and answers. With nothing around, the
                # middleware must answer: the application's own handler believes that its answer is on the way.
                if hold is not None and not hold.drop():
                    await hold.leave()
                elif hold is not None and not within_starlette:
                    start, body = failure()
                    prepare(start)
                    await send(start)
                    await send(body)
                await _remember(principals, seen)
                raise
            except BaseException:
                if hold is not None:
                    hold.abandon()
                raise
            if hold is not None:
                await hold.leave()
            await _remember(principals, seen)

    async def _pass_through(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            send = send if self._store is None else _closing(self._store, send)
        elif self._store is not None and _under_way(scope) and not self._warned:
            self._warned = True
            say(
                logging.WARNING,
                "middleware-ignored",
                reason="another CausalityMiddleware is around the one with a store, and carries the tokens",
                remedy="give store= and key= to the outermost one",
            )
        await self.app(scope, receive, send)

    def _answer(
        self, message: Message, seen: Causality, request: Request, brought: Brought, scope: Scope, arrived: float
    ) -> None:
        if not (seen.grew or self._route_header or request.bucket is not None):
            return
        headers: list[tuple[bytes, bytes]] = list(message.get("headers", ()))
        cookie = request.bucket.cookie(headers) if request.bucket is not None else None
        if seen.grew or cookie is not None:
            for name, _ in headers:
                if name.lower() == b"cache-control":
                    break
            else:
                # A shared cache that kept this answer would hand one client's token, or bucket, to all.
                headers.append((b"cache-control", b"private"))
        if cookie is not None:
            headers.append((b"set-cookie", cookie.encode()))
        if seen.grew:
            token = seen.token
            text = self._seal.sealed(token)
            if request.tell is not None:
                request.tell(TokenIssued())
            headers.append((HEADER_OF_ASGI, text.encode()))
            cookies = self._cookies(token, text, seen, brought, scope, arrived)
            headers += [(b"set-cookie", each.encode()) for each in cookies]
        if self._route_header and seen.routes:
            headers.append((_ROUTE_HEADER, ", ".join(map(str, dict.fromkeys(seen.routes))).encode()))
        message["headers"] = headers

    def _cookies(
        self, token: CausalToken, text: str, seen: Causality, brought: Brought, scope: Scope, arrived: float
    ) -> list[str]:
        # A second more: clients may count in whole seconds (Python's cookie jar does), and none must end early.
        age = max(_AT_LEAST, math.ceil(_WINDOWS * seen.window)) + 1
        crowded, now = token.crowded_until, time.time()
        if crowded <= now + _AHEAD / 2:
            share = max(1, _SLOTS_OF_ALL // max(known.processes.values(), default=known.UNCOUNTED))
            client, most = (brought.client, min(share, _SLOTS)) if brought.names else (_stranger(scope), share)
            if brought.slots <= _SLOTS and self._given.another(client, most, arrived):
                return self._jar.set(text, brought.names, age)
            crowded = math.ceil(now) + _AHEAD
        return self._jar.set_in_crowd(self._seal.sealed(token.crowded(crowded)), brought.names, age)


def _under_way(scope: Scope) -> bool:
    """Whether a middleware around this one serves the request.

    A scope may come again when its request has been served: for a retry, or for another application.
    """
    around: Causality | None = scope.get(_SCOPE)
    return around is not None and around.under_way


def _covered(principals: Principals, seen: Causality, send: Send) -> Send:
    """A `send` before which the store has what was written."""

    async def covered(message: Message) -> None:
        await _remember(principals, seen)
        await send(message)

    return covered


async def _remember(principals: Principals | None, seen: Causality) -> None:
    """Give the store what it lacks, before the client can learn of it."""
    if principals is not None and seen.grew and principals.lack(seen.changes):
        await principals.remember(seen.token, seen.changes, seen.window)


def _closing(store: Store, send: Send) -> Send:
    """A `send` that closes the store when the application has shut down: the server stops listening to it then."""

    async def closing(message: Message) -> None:
        if message["type"] in _SHUTDOWNS:
            await store.aclose()
        await send(message)

    return closing


def _stranger(scope: Scope) -> int:
    """A number for a client that brought no token, from its host and headers; a proxy in between chooses the port."""
    told = tuple(value for name, value in scope["headers"] if name in _TELLING)
    return hash(((scope.get("client") or ("",))[0], told))
