"""`uv run python -m tests.history --seeds 10 --seconds 60`: the consistency checker over seeded fault schedules.

Each seed starts a cluster of its own, two worker processes and clients over HTTP, plays its schedule of faults and
checks what the clients saw. It prints a line for each; for a seed that fails, the violations as stories, what the
workers logged, and the command that runs it again. Exit status 1 when there was a violation.
"""

# ruff: noqa: T201 - a command prints

import argparse
import asyncio
import sys
import time
from dataclasses import replace
from pathlib import Path

from .campaign import POLICY, run


def main() -> int:
    """Run the seeds, one after the other."""
    parse = argparse.ArgumentParser(prog="python -m tests.history", description=__doc__)
    parse.add_argument("--seeds", type=int, default=10, help="how many")
    parse.add_argument("--first", type=int, default=1, help="the first one")
    parse.add_argument("--seconds", type=float, default=60.0, help="how long each schedule is")
    parse.add_argument("--without-primary", choices=("serve", "refuse"), default=POLICY.without_primary)
    parse.add_argument("--steps", action="store_true", help="print each fault when it begins")
    parse.add_argument("--log", type=Path, help="append what the workers logged to this file")
    given = parse.parse_args()
    policy = replace(POLICY, without_primary=given.without_primary)
    failed = []
    for seed in range(given.first, given.first + given.seeds):
        began = time.monotonic()
        try:
            result = asyncio.run(run(seed, given.seconds, policy=policy, tell=print if given.steps else _quiet))
        except Exception as error:
            print(f"seed {seed}: {type(error).__name__}: {error}", flush=True)
            failed.append(seed)
            continue
        print(
            f"seed {seed}, {time.monotonic() - began:.0f} s, {len(result.schedule.steps)} faults: {result}", flush=True
        )
        if given.log:
            with given.log.open("a") as log:
                log.write(f"== seed {seed}\n{result.log}")
        if result.violations:
            failed.append(seed)
            print(result.schedule)
            print(result.stories())
            again = f"--seeds 1 --first {seed} --seconds {given.seconds:g} --without-primary {given.without_primary}"
            print(f"Again: uv run python -m tests.history {again} --steps", flush=True)
    print(
        f"{given.seeds - len(failed)} of {given.seeds} seeds without a violation" + f"; failed: {failed}" * bool(failed)
    )
    return 1 if failed else 0


def _quiet(_: str) -> None:
    pass


if __name__ == "__main__":
    sys.exit(main())
