"""Which clients' reads may go to replicas: each client is in one bucket, and a share lets the lowest buckets in."""

import hashlib

BUCKETS = 1_000_000


def bucket_of(key: str | bytes) -> int:
    """The bucket, 0 to 999,999, of the client with this key: the same in every process and every release.

    >>> bucket_of("user:42")
    910459
    """
    data = key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key
    return int.from_bytes(hashlib.sha256(b"lagwise.offload\0" + data).digest()[:8]) % BUCKETS


def held_back(bucket: int, share: float) -> bool:
    """Whether a client in this bucket reads from the primary. A greater share holds back no client that was let in."""
    return bucket >= share * BUCKETS
