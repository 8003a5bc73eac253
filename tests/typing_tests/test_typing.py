"""What type checkers promise an application: public names have types, and mistakes are found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
# What must be refused, line by line: each is a mistake that no test of the application may meet.
MISTAKES = """
from sqlalchemy.ext.asyncio import create_async_engine
from lagwise import Causality, Policy, Replica, Router
from lagwise.httpx import propagate
from lagwise.store import RedisStore
Policy(5.0)
Policy(max_lag="5")
Policy(without_primary="ignore")
Policy(max_age=5.0)
Router()
Router(primary=None)
Router("postgresql://", replicas={"a": 1})
Router("postgresql://", policy={})
Replica("postgresql://", 2)
Causality(7)
Router("postgresql://").read(max_staleness="1")
Router("postgresql://").view.nodes[0].name = "x"
RedisStore(7)
propagate("http://a", secret="x")
"""


def check(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a type checker as a user of the repository does."""
    return subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, check=False, text=True, cwd=ROOT, timeout=170
    )


def test_mypy_sees_what_is_documented_and_finds_the_mistakes(tmp_path: Path) -> None:
    """Mypy --strict accepts the applications beside this file, every assert_type included.

    Names that do not exist and values of a wrong type are errors, each on its line.
    """
    module = tmp_path / "mistakes.py"
    module.write_text(MISTAKES)
    answer = check("mypy", "--strict", "--hide-error-context", str(HERE), str(module))
    found = {tuple(line.split(":")[:2]) for line in answer.stdout.splitlines() if ": error:" in line}
    lines = range(6, MISTAKES.count("\n") + 1)
    assert ({(Path(name).name, int(line)) for name, line in found}, answer.stderr) == (
        {(module.name, line) for line in lines},
        "",
    ), answer.stdout


def test_pyright_sees_the_types_that_are_documented() -> None:
    """So does pyright. It brings a Node.js of its own; where that cannot start, this is skipped."""
    answer = check("pyright", "--outputjson", "--pythonpath", sys.executable, str(HERE))
    if not answer.stdout.startswith("{"):
        started = check("pyright", "--version")
        if started.returncode != 0:
            pytest.skip(f"pyright does not start here: {(started.stderr or started.stdout).strip()[-200:]}")
    assert answer.returncode == 0, answer.stdout
    assert json.loads(answer.stdout)["summary"]["filesAnalyzed"] == len(list(HERE.glob("*.py")))
