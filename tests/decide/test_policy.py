"""What a Policy promises: a wrong setting is an error when it is built, by name."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lagwise import Policy

DURATIONS = ["max_lag", "sticky_window", "catch_up", "probe_interval", "probe_timeout", "abort_after", "close_timeout"]
ABOVE_ZERO = [name for name in DURATIONS if name != "catch_up"]


def test_its_defaults_are_those_of_the_documentation() -> None:
    """Five seconds of lag, five of stickiness, fifty milliseconds of patience; reads may fall back."""
    assert {field.name: field.default for field in fields(Policy)} == {
        "max_lag": 5.0,
        "sticky_window": 5.0,
        "catch_up": 0.05,
        "probe_interval": 0.5,
        "probe_timeout": 0.5,
        "fall_back": True,
        "fall_back_limit": None,
        "abort_after": 5.0,
        "connect_timeout": 5.0,
        "close_timeout": 5.0,
        "guarantee": "read-your-writes",
        "without_primary": "serve",
        "offload": 1.0,
    }


@pytest.mark.parametrize("name", DURATIONS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "5", None, True, 1j, [5]], ids=repr)
def test_a_duration_that_is_no_number_is_refused(name: str, value: Any) -> None:
    """NaN, infinity, text and booleans raise ValueError naming the setting."""
    with pytest.raises(ValueError, match=f"{name} must be a number of seconds"):
        Policy(**{name: value})


@pytest.mark.parametrize("name", DURATIONS)
@given(value=st.floats(max_value=0, exclude_max=True, allow_infinity=False))
def test_a_negative_duration_is_refused(name: str, value: float) -> None:
    """No time runs backwards; the message names the setting."""
    with pytest.raises(ValueError, match=f"^{name} must be"):
        Policy(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ABOVE_ZERO)
def test_a_duration_of_zero_is_refused_where_it_makes_no_sense(name: str) -> None:
    """A window, a bound or a probe of no length at all; only catch_up may be 0: do not wait."""
    with pytest.raises(ValueError, match=f"^{name} must be above 0"):
        Policy(**{name: 0})  # type: ignore[arg-type]
    assert Policy(catch_up=0).catch_up == 0


@given(st.floats(0.001, 1e6), st.floats(0.001, 1e6))
def test_the_sticky_window_is_at_least_the_lag_bound(sticky_window: float, max_lag: float) -> None:
    """Or an expired token would uncover a replica that misses the write."""
    if sticky_window >= max_lag:
        Policy(sticky_window=sticky_window, max_lag=max_lag)
        return
    with pytest.raises(ValueError, match=r"sticky_window .* must be at least max_lag .* raise sticky_window or lower"):
        Policy(sticky_window=sticky_window, max_lag=max_lag)


@pytest.mark.parametrize(("name", "value"), [("max_lag", 6.0), ("sticky_window", 4.0)])
def test_the_defaults_count_in_that_comparison(name: str, value: float) -> None:
    """Changing one of the two alone does not get past it."""
    with pytest.raises(ValueError, match="sticky_window"):
        Policy(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "words"),
    [("without_primary", ("serve", "refuse")), ("guarantee", ("read-your-writes", "session"))],
)
@pytest.mark.parametrize("value", ["Serve", "", "ignore", None, True])
def test_a_choice_is_one_of_two_words(name: str, words: tuple[str, str], value: Any) -> None:
    """The message names the setting and both words."""
    with pytest.raises(ValueError, match=f"^{name} must be '{words[0]}' or '{words[1]}', not"):
        Policy(**{name: value})
    for word in words:
        assert getattr(Policy(**{name: word}), name) == word  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [-1, 1.5, "5", True, math.inf], ids=repr)
def test_a_limit_of_sessions_is_a_whole_number(value: Any) -> None:
    """Half a session, or fewer than none, is refused by name; 0 and None, for no limit, are taken."""
    with pytest.raises(ValueError, match=r"^fall_back_limit must be a whole number of sessions"):
        Policy(fall_back_limit=value)
    assert [Policy(fall_back_limit=limit).fall_back_limit for limit in (0, 5, None)] == [0, 5, None]


@pytest.mark.parametrize("value", [-0.01, 1.01, 10, math.nan, math.inf, "0.1", None, True, 1j], ids=repr)
def test_a_share_of_clients_is_between_none_and_all(value: Any) -> None:
    """Ten is not ten per cent; what is no share is refused by name, 0 and 1 are taken."""
    with pytest.raises(ValueError, match=r"^offload must be a share of clients from 0 to 1, not"):
        Policy(offload=value)
    assert [Policy(offload=share).offload for share in (0, 0.1, 1)] == [0, 0.1, 1]


def test_it_does_not_change_after_it_was_checked() -> None:
    """What was validated is what is used."""
    with pytest.raises(FrozenInstanceError):
        Policy().max_lag = 60.0  # type: ignore[misc]
