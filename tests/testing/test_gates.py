"""Gates open as soon as something is so, and say what they waited for when it never is."""

import asyncio

import pytest

from lagwise.testing import wait_until


async def test_the_true_value_is_returned() -> None:
    """Plain and asynchronous predicates are polled until they are true, and the value comes back."""
    values = iter([0, None, "", 7])
    assert await wait_until(lambda: next(values), what="seven", interval=0) == 7

    async def later() -> list[int]:
        return [1]

    assert await wait_until(later) == [1]


async def test_the_message_says_what_was_waited_for() -> None:
    """Too late: what, how long, and what was seen last."""
    with pytest.raises(TimeoutError, match=r"^waited 0\.02 s until pigs fly; last seen: 0$"):
        await wait_until(lambda: 0, timeout=0.02, what="pigs fly")

    async def hang() -> bool:
        await asyncio.Event().wait()
        return True

    with pytest.raises(TimeoutError, match=r"until hang; last seen: .*did not return"):
        await wait_until(hang, timeout=0.02)


async def test_a_predicates_own_error_goes_through() -> None:
    """Nothing is swallowed, a TimeoutError of the predicate's own included."""

    def fails() -> bool:
        message = "mine"
        raise TimeoutError(message)

    with pytest.raises(TimeoutError, match=r"^mine$"):
        await wait_until(fails)
