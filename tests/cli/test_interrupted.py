"""Ctrl-C while the command is being imported."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

# Stands for the first package that lagwise imports: it tells that it is being imported, and waits.
_GATE = "import sys; print('importing', flush=True); sys.stdin.read(); import does_not_exist"


@pytest.fixture
def held(tmp_path: Path) -> dict[str, str]:
    """The environment of a process whose imports go no further than SQLAlchemy."""
    (tmp_path / "sqlalchemy.py").write_text(_GATE)
    return {**os.environ, "PYTHONPATH": str(tmp_path)}


@pytest.mark.parametrize("command", [["watch"], ["doctor"], ["explain"], ["demo"], ["cluster", "up"]])
def test_it_ends_at_once_and_without_a_traceback(held: dict[str, str], command: list[str]) -> None:
    """Status 130, as of any command that was interrupted before it began."""
    script = Path(sys.executable).with_name("lagwise")
    with subprocess.Popen(
        [script, *command], env=held, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"importing\n"
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)
    assert (process.returncode, *said) == (130, b"", b"")


def test_where_a_shell_ignores_it_it_is_ignored(held: dict[str, str]) -> None:
    """A shell's background jobs go on: the command meets what is wrong with its imports."""
    script = Path(sys.executable).with_name("lagwise")
    with subprocess.Popen(
        [script, "watch"], env=held, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),  # noqa: PLW1509 - it calls nothing else
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == b"importing\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert b"does_not_exist" in said
