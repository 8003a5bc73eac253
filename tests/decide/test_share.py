"""Buckets: which clients a share lets in, in every process and every release the same."""

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from lagwise._decide.offload import BUCKETS, bucket_of, held_back

BUCKET_OF_USER_1 = 860200


def test_a_key_has_one_bucket_in_every_process_and_release() -> None:
    """Python's own hash() would change with each start; these numbers are part of what was released."""
    keys = ["user:1", "user:2", "api-key:ß", "\udcff"]
    expected = [bucket_of(key) for key in keys]
    code = f"from lagwise._decide.offload import bucket_of; print(*map(bucket_of, {keys!r}))"
    for seed in ("1", "2"):
        command = [sys.executable, "-c", code]
        told = subprocess.run(command, env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True).stdout
        assert [int(number) for number in told.split()] == expected
    assert [bucket_of("user:1"), bucket_of(b"user:1")] == [BUCKET_OF_USER_1] * 2


def test_a_tenth_of_the_clients_is_a_tenth() -> None:
    """Of 20,000 principals in a row 10 % are let in, give or take four standard deviations; likewise 1 %, and half."""
    buckets = [bucket_of(f"user:{number}") for number in range(20_000)]
    for share in (0.01, 0.1, 0.5):
        let_in = sum(not held_back(bucket, share) for bucket in buckets)
        assert abs(let_in - 20_000 * share) <= 4 * (20_000 * share * (1 - share)) ** 0.5
    assert all(held_back(bucket, 0.0) for bucket in buckets)
    assert not any(held_back(bucket, 1.0) for bucket in buckets)


@given(st.integers(0, BUCKETS - 1), st.floats(0, 1), st.floats(0, 1))
def test_a_rising_share_holds_back_no_client_that_was_let_in(bucket: int, one: float, other: float) -> None:
    """A client's reads do not move back and forth while a rollout goes on."""
    low, high = sorted((one, other))
    assert held_back(bucket, low) or not held_back(bucket, high)
    assert held_back(bucket, 0.0)
    assert not held_back(bucket, 1.0)
