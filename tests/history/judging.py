"""What the mutation suite's tests share: lagwise beside the mutant, and what the checkers say of each."""

from typing import Any

import pytest

from lagwise.testing.history import SESSION, Checker, History, Recorder, check

from .mutants import Mutant

BOTH = pytest.mark.parametrize("bad", [False, True], ids=["lagwise", "mutant"])


def convicted(recorder: Recorder, *guarantees: Checker, survived: Any = None) -> set[str]:
    """The guarantees that the checkers say were broken."""
    found = check(History(tuple(recorder.operations), survived), guarantees or SESSION)
    return {violation.guarantee for violation in found}


def mutate(patch: pytest.MonkeyPatch, mutant: Mutant, bad: bool) -> None:
    """Break lagwise, in one of the two runs of a test."""
    if bad:
        mutant(patch)
