"""A store of principals in Redis, for applications of several processes."""

import asyncio
import math
from typing import TYPE_CHECKING, Any

from lagwise._client.redis_presence import Presence
from lagwise._client.signature import Seal
from lagwise._client.store import Store
from lagwise._decide.token import CausalToken
from lagwise._extras import extra

if TYPE_CHECKING:
    from redis.asyncio import Redis


class RedisStore(Store):
    """Keeps what principals have seen in Redis: for all processes that serve them.

    Merging is one atomic step in Redis. What is kept is signed with the secret of the middleware, expires after the
    sticky window and a minute, and is never deleted. Redis may be slow, stopped, full or restarted without its data:
    then the reads of principals use the primary, and no request fails because of it.

    Args:
        redis: the URL, or a client of `redis.asyncio`, which stays yours.
        timeout: seconds that one question to Redis may take; then the read goes to the primary.
        lease: seconds that a response may wait when its position could not be stored: for as long other processes may
            rely on this one. Once Redis is known to be gone, nothing waits.
        keep: seconds for which a token is kept at least. Services that share a store and differ in `sticky_window`
            need the longest one, and a minute.
        prefix: of all keys; applications with different databases need not differ in it.

    Raises:
        ImportError: redis-py is not installed: `pip install "lagwise[redis]"`.
        ValueError: a number of seconds is out of range, or `redis` is something else, such as None or a client of
            `redis` that is not asynchronous.
    """

    __module__ = "lagwise.store"

    def __init__(
        self,
        redis: "str | Redis",
        *,
        timeout: float = 0.1,
        lease: float = 1.0,
        keep: float = 0.0,
        prefix: str = "lagwise",
    ) -> None:
        if not (math.isfinite(timeout) and timeout > 0):
            raise ValueError(f"timeout must be a number of seconds, above 0, not {timeout!r}")
        if not (math.isfinite(lease) and lease >= 4 * timeout):
            raise ValueError(f"lease must be at least four times the timeout ({timeout:g} s), not {lease!r}")
        if not (math.isfinite(keep) and keep >= 0):
            raise ValueError(f"keep must be a number of seconds, at least 0, not {keep!r}")
        with extra("redis", "RedisStore"):
            # `import lagwise.store` works without redis-py.
            from redis.asyncio import Redis, RedisCluster  # noqa: PLC0415

        if not isinstance(redis, str | Redis | RedisCluster):
            # An environment variable that is not set, or a client that blocks: no request would tell.
            raise ValueError(
                'redis must be a URL such as "redis://cache:6379", or a client of redis.asyncio, '
                f"not {type(redis).__module__}.{type(redis).__qualname__}"
            )
        self._redis = redis
        if isinstance(redis, str):
            Redis.from_url(redis)  # a mistake in the URL is told here, not by each request
        self._options: dict[str, Any] = {"timeout": timeout, "lease": lease, "keep": keep, "prefix": prefix}
        self._at: tuple[asyncio.AbstractEventLoop, Redis, Presence] | None = None

    async def recall(self, name: str, seal: Seal, window: float) -> CausalToken:
        """What this principal has seen; with a doubt where Redis may not know all of it."""
        return await self._presence().recall(name, seal, window)

    async def remember(self, name: str, token: CausalToken, seal: Seal, window: float) -> None:
        """Merge this token into what the principal has seen."""
        await self._presence().remember(name, token, seal, window)

    async def aclose(self) -> None:
        """End this process's lease, so that other processes do not wait for it; the middleware calls this."""
        at, self._at = self._at, None
        if at is None or at[0] is not asyncio.get_running_loop():
            return
        await at[2].leave()
        if at[1] is not self._redis:
            await at[1].aclose()

    def __repr__(self) -> str:
        return f"<RedisStore {'open' if self._at is not None else 'closed'}>"

    def _presence(self) -> Presence:
        loop = asyncio.get_running_loop()
        if self._at is None or self._at[0] is not loop:
            # Connections and tasks belong to an event loop. A store made before a fork begins in the child.
            client = _client(self._redis) if isinstance(self._redis, str) else self._redis
            self._at = loop, client, Presence(client, **self._options)
        return self._at[2]


def _client(url: str) -> "Redis":
    from redis.asyncio import Redis  # noqa: PLC0415
    from redis.asyncio.retry import Retry  # noqa: PLC0415
    from redis.backoff import NoBackoff  # noqa: PLC0415

    # A question is not repeated by the client: the reply that it waits for may be worth nothing by then.
    return Redis.from_url(url, retry=Retry(NoBackoff(), 0))
