"""The ASGI middleware that carries a client's causality from one request to the next."""

import logging
import math
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from lagwise._client.causality import Causality
from lagwise._client.cookies import Jar, brought
from lagwise._client.signature import Seal
from lagwise._decide.token import CausalToken, merged
from lagwise.errors import InvalidToken

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_log = logging.getLogger("lagwise")
_SCOPE = "lagwise.causality"
_STARTS = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})
_HEADER = b"lagwise-token"
_ROUTE_HEADER = b"lagwise-route"


class CausalityMiddleware:
    """Gives every request the causal token its client brought, and every client that wrote the new one.

    Args:
        app: the application.
        secret: signs the token; a list rotates: the first signs, all verify.
        secure: mark the cookie Secure: for sites served over HTTPS only.
        path, domain: of the cookie.
        route_header: answer `Lagwise-Route: replica-1; reason=caught-up`, for debugging.

    Raises:
        ValueError: no secret.

    A token that was forged, cut or made elsewhere is no error: the request goes on as a new client's.
    """

    __module__ = "lagwise.asgi"

    def __init__(
        self,
        app: ASGIApp,
        *,
        secret: str | Sequence[str],
        secure: bool = False,
        path: str = "/",
        domain: str | None = None,
        route_header: bool = False,
    ) -> None:
        self.app = app
        self._seal = Seal(secret)
        self._jar = Jar(path=path, domain=domain, secure=secure)
        self._route_header = route_header

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application inside the client's causality."""
        if scope["type"] not in {"http", "websocket"} or _SCOPE in scope:
            await self.app(scope, receive, send)
            return
        texts, names = _brought(scope)
        # One mutable object, reachable from whatever copies the scope or the context on the way down.
        with Causality(merged(map(self._verified, dict.fromkeys(texts))) if texts else None) as seen:
            scope[_SCOPE] = seen

            def sending(message: Message) -> Awaitable[None]:
                if message["type"] in _STARTS:
                    self._answer(message, seen, names)
                return send(message)

            await self.app(scope, receive, sending)

    def _verified(self, text: str) -> CausalToken:
        try:
            return self._seal.opened(text)
        except InvalidToken as error:
            _log.debug("token-ignored", extra={"reason": str(error)})
            return CausalToken()

    def _answer(self, message: Message, seen: Causality, names: list[str]) -> None:
        if not (seen.grew or self._route_header):
            return
        headers: list[tuple[bytes, bytes]] = list(message.get("headers", ()))
        if seen.grew:
            text = self._seal.sealed(seen.token)
            # A second more: clients may count in whole seconds (Python's cookie jar does), and none must end early.
            age = math.ceil(seen.window) + 1
            headers.append((_HEADER, text.encode()))
            headers.extend((b"set-cookie", cookie.encode()) for cookie in self._jar.set(text, names, age))
            if not any(name.lower() == b"cache-control" for name, _ in headers):
                # A shared cache that kept this answer would hand one client's token to all.
                headers.append((b"cache-control", b"private"))
        if self._route_header and seen.routes:
            headers.append((_ROUTE_HEADER, ", ".join(map(str, dict.fromkeys(seen.routes))).encode()))
        message["headers"] = headers


def _brought(scope: Scope) -> tuple[list[str], list[str]]:
    """Every token text in header and cookies, the greatest of which counts, and the cookies' names."""
    texts, names = [], []
    for name, value in scope["headers"]:
        if name == _HEADER:
            texts += [text.strip() for text in value.decode("latin-1").split(",")]
        elif name == b"cookie":
            found = brought(value.decode("latin-1"))
            names += [name for name, _ in found]
            texts += [text for _, text in found]
    return texts, names
