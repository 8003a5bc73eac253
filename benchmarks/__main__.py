"""What a session costs, beside the sessions people write today: `uv run python -m benchmarks`.

Contestants take turns in one run against one cluster, so that whatever else the machine does meets all of them.
Round trips are counted on the wire; times are medians, and mean something only as ratios of the same run.
"""

import argparse
import asyncio
import json
import os
import platform
import sys
from collections.abc import Awaitable, Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.peer import PeerError
from benchmarks.plot import draw
from benchmarks.progress import progress
from benchmarks.tables import Table
from lagwise.testing import ClusterError

Scenario = Callable[[bool], Awaitable[list[Table]]]
# Imported when it is their turn: one scenario does not need what another one needs.
SCENARIOS = {
    "read": "benchmarks.sessions:read",
    "write": "benchmarks.sessions:write",
    "concurrency": "benchmarks.concurrency:run",
    "http-read": "benchmarks.web:read",
    "http-frozen": "benchmarks.web:frozen",
    "http-write": "benchmarks.web:write",
    "http-mixed": "benchmarks.web:mixed",
    "offload": "benchmarks.offload:run",
    "growth": "benchmarks.growth:run",
    "black-hole": "benchmarks.silence:run",
    "instructions": "benchmarks.instructions:run",
    "judging": "benchmarks.judging:run",
    "scrape": "benchmarks.scrape:run",
    "readiness": "benchmarks.readiness:run",
}
_SHOWN = ("lagwise", "sqlalchemy", "asyncpg", "fastapi", "uvicorn", "uvloop", "httptools")


def scenario(name: str) -> Scenario:
    """The function behind a name."""
    module, _, function = SCENARIOS[name].partition(":")
    found: Scenario = getattr(import_module(module), function)
    return found


def surroundings(quick: bool) -> dict[str, Any]:
    """What the figures belong to."""
    versions = {}
    for package in _SHOWN:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "quick": quick,
        "python": platform.python_version(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "versions": versions,
    }


async def run(names: list[str], quick: bool, tables: list[Table]) -> None:
    """One scenario after the other; what is finished is in `tables`, whatever happens to the rest."""
    for name in names:
        progress(name)
        for table in await scenario(name)(quick):
            print(f"\n{table}", flush=True)
            tables.append(table)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(SCENARIOS), default=list(SCENARIOS), metavar="SCENARIO",
                        help="some of: " + ", ".join(SCENARIOS))  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="few rounds: to see that it works, not to quote")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    parser.add_argument("--plot", type=Path, metavar="DIRECTORY", help="where to draw them, an SVG for each table")
    chosen = parser.parse_args()
    if chosen.json is not None and not chosen.json.parent.is_dir():
        parser.error(f"there is no directory {chosen.json.parent}")
    if chosen.plot is not None and not chosen.plot.is_dir():
        parser.error(f"there is no directory {chosen.plot}")
    return chosen


def main() -> int:
    chosen = arguments()
    tables: list[Table] = []
    status = 0
    try:
        asyncio.run(run(chosen.only, chosen.quick, tables))
    except KeyboardInterrupt:
        progress("stopped")
        status = 130
    except (ClusterError, PeerError) as error:
        print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        status = 1
    if tables and chosen.json is not None:
        found = {**surroundings(chosen.quick), "tables": [table.as_json() for table in tables]}
        chosen.json.write_text(json.dumps(found, indent=1) + "\n")
    if tables and chosen.plot is not None:
        draw(tables, chosen.plot)
    return status


if __name__ == "__main__":
    sys.exit(main())
