"""One service calls another: an httpx client sends the causality it runs in, and merges what comes back."""

import threading

from lagwise._extras import extra

with extra("httpx", "lagwise.httpx"):
    import httpx

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from lagwise._client.causality import Causality
from lagwise._client.doubts import doubt
from lagwise._client.http import HEADER, SAFE_METHODS, texts_of
from lagwise._client.signature import Seal, plausible
from lagwise.errors import InvalidToken

__all__ = ["propagate"]

Client = TypeVar("Client", bound=httpx.Client | httpx.AsyncClient)

# With these, and from 500 on, a gateway answers that did not hear what the service did, or a service whose endpoint
# raised after it had committed. Each gateway has numbers of its own: 503 is Envoy's for a connection that was cut.
_UNHEARD = frozenset({408, 499})
# Nothing was sent.
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)
# The race: beside an event loop an `httpx.Client` is called in threads, two calls of one request end together, and each
# merges its token into what was there before the other.
_MERGING = threading.Lock()


def propagate(
    client: Client, *, secret: str | Sequence[str], verify_only: str | Sequence[str] = (), hosts: Iterable[str] = ()
) -> Client:
    """Make this client send the causal token of the causality it runs in, and merge the token that comes back.

    Args:
        client: an `httpx.AsyncClient` or `httpx.Client`; it is changed, and returned.
        secret: that of the services' `CausalityMiddleware`; of a list the first signs and all verify.
        verify_only: more secrets that verify and never sign.
        hosts: names of hosts that get the token, on any port, beside the origin of the client's `base_url`. No other
            host gets it, also not by a redirect, and what another host answers is not read.

    Outside of a causality nothing is sent and nothing is merged. A call that may write and whose outcome is unknown,
    because it failed after it was sent or was answered by an error of a server or a gateway without a token, leaves the
    causality in doubt: its reads use the primary.

    Raises:
        ValueError: no secret; neither a `base_url` nor `hosts`, so that no host would get the token; or `hosts` is no
            list of names, but a string, or has an entry with a scheme, a port or a path.
    """
    if isinstance(hosts, str):
        raise ValueError('hosts must be a list of names, and is a string: propagate(..., hosts=["billing.internal"])')
    names = frozenset(map(_name, hosts))
    if not (names or client.base_url.host):
        raise ValueError(
            'propagate() must know the services: Client(base_url=...), or propagate(..., hosts=["orders"])'
        )
    rules = _Rules(Seal(secret, verify_only), client, names)
    asynchronous = isinstance(client, httpx.AsyncClient)
    hooks = client.event_hooks
    for moment, hook in {
        "request": _AsyncHook(rules.send) if asynchronous else _Hook(rules.send),
        "response": _AsyncHook(rules.receive) if asynchronous else _Hook(rules.receive),
    }.items():
        # Between the application's hooks and the network: it sees the request as it leaves, and the response before a
        # hook that raises for its status. A second call replaces the first.
        others = [each for each in hooks[moment] if not isinstance(each, _Hook)]
        hooks[moment] = [*others, hook] if moment == "request" else [hook, *others]
    client.event_hooks = hooks
    sending = _AsyncSending(client.send, rules) if asynchronous else _Sending(client.send, rules)
    setattr(client, "send", sending)  # noqa: B010 -- no type says that a method may be replaced
    return client


class _Rules:
    """What one client sends and reads; for both kinds of clients."""

    def __init__(self, seal: Seal, client: httpx.Client | httpx.AsyncClient, hosts: frozenset[str]) -> None:
        self._seal = seal
        self._client = client
        self._hosts = hosts

    def send(self, request: httpx.Request) -> None:
        """Add the token to a request; called for each hop of a redirect."""
        if not self._ours(request):
            # A redirect has copied the header of the request before it.
            request.headers.pop(HEADER, None)
            return
        seen = Causality.current()
        if seen is None or not (token := seen.token):
            return
        # One more than the service reads is no less: it counts as a doubt there.
        others = filter(None, texts_of(request.headers.get(HEADER, "")))
        request.headers[HEADER] = ", ".join(dict.fromkeys([self._seal.sealed(token), *others]))

    def receive(self, response: httpx.Response) -> None:
        """Merge what a response brings, before the caller gets it."""
        seen = Causality.current()
        if seen is None or not self._ours(response.request):
            return
        texts = [text for text in texts_of(response.headers.get(HEADER, "")) if text]
        for text in texts:
            try:
                if not plausible(text):
                    raise InvalidToken("not a causal token")
                seen.learn(self._seal.opened(text))
            except InvalidToken:
                # The service has written something, and says where with a secret that is not known here.
                seen.learn([doubt()])
        if not texts and (response.status_code >= 500 or response.status_code in _UNHEARD):
            self.unheard(response.request)

    def unheard(self, request: httpx.Request) -> None:
        """Doubt what a request has done whose outcome is unknown."""
        seen = Causality.current()
        if seen is not None and request.method not in SAFE_METHODS and self._ours(request):
            seen.learn([doubt()])

    def _ours(self, request: httpx.Request) -> bool:
        if request.url.host in self._hosts:
            return True
        base, url = self._client.base_url, request.url
        return bool(base.host) and (url.scheme, url.host, _port(url)) == (base.scheme, base.host, _port(base))


class _Hook:
    """A hook of httpx that is known as ours."""

    def __init__(self, act: Any) -> None:
        self._act = act

    def __call__(self, what: Any) -> Any:
        with _MERGING:
            self._act(what)


class _AsyncHook(_Hook):
    async def __call__(self, what: Any) -> None:
        self._act(what)


class _Sending:
    """A client's `send`, which hears of requests that fail: no hook of httpx does."""

    def __init__(self, send: Any, rules: _Rules) -> None:
        # A second call of `propagate` replaces the first.
        self.send: Any = send.send if isinstance(send, _Sending) else send
        self.rules = rules

    def __call__(self, request: httpx.Request, **options: Any) -> Any:
        try:
            return self.send(request, **options)
        except BaseException as error:
            with _MERGING:
                self.failed(error, request)
            raise

    def failed(self, error: BaseException, request: httpx.Request) -> None:
        if not isinstance(error, _NOT_SENT):
            self.rules.unheard(request)


class _AsyncSending(_Sending):
    async def __call__(self, request: httpx.Request, **options: Any) -> Any:
        try:
            return await self.send(request, **options)
        except BaseException as error:  # a cancellation, too
            self.failed(error, request)
            raise


def _name(host: str) -> str:
    """A host as httpx calls it in the URL of a request."""
    try:
        name = httpx.URL(scheme="http", host=host).host
    except httpx.InvalidURL:  # a colon that is not that of an IPv6 address
        name = ""
    if not name or not {"%", "*"}.isdisjoint(name):  # httpx quotes a slash, a blank or an @
        raise ValueError(
            "hosts must be names of hosts without scheme, port, path or wildcard, as in "
            'propagate(..., hosts=["billing.internal"]): all ports of such a host get the token'
        )
    return name


def _port(url: httpx.URL) -> int | None:
    return url.port or {"http": 80, "https": 443}.get(url.scheme)
