"""Stores of what principals have seen, for `CausalityMiddleware(store=...)`: in memory, and in Redis."""

from lagwise._client.memory_store import MemoryStore
from lagwise._client.redis_store import RedisStore

__all__ = ["MemoryStore", "RedisStore"]
