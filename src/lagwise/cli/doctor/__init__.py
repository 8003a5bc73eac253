"""`lagwise doctor`: looks at the nodes, says what is wrong with them, and what to do about it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from typing import Annotated, TypeVar

import typer

from lagwise._decide.identity import system_identifier
from lagwise._pools.options import DEFAULTS
from lagwise.cli.doctor import report
from lagwise.cli.doctor.asking import ask_all
from lagwise.cli.doctor.diagnose import diagnose, healthy
from lagwise.cli.doctor.facts import Plan
from lagwise.cli.doctor.named import Named, configured, named
from lagwise.cli.opening import fail
from lagwise.settings import Settings

_FAULT, _INTERRUPTED = 1, 130  # 128 + SIGINT, as shells have it

T = TypeVar("T")


def doctor(
    urls: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[URL]...",
            help="The primary's URL, then the replicas'; name=url gives a name. "
            "Without any: LAGWISE_PRIMARY and LAGWISE_REPLICAS.",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, max=100_000, help="Processes of the application, on all machines.")
    ] = 1,
    pool_size: Annotated[
        int | None,
        typer.Option(
            min=0, max=100_000, help="pool_size of the application's Router. [default: LAGWISE_POOL_SIZE, or 20]"
        ),
    ] = None,
    max_overflow: Annotated[
        int | None,
        typer.Option(
            min=-1, max=100_000, help="max_overflow of the application's Router. [default: LAGWISE_MAX_OVERFLOW, or 0]"
        ),
    ] = None,
    pooling: Annotated[
        str | None,
        typer.Option(
            help="pooling of the application's Router: session or transaction. [default: LAGWISE_POOLING, or session]"
        ),
    ] = None,
    max_lag: Annotated[
        float | None,
        typer.Option(
            min=0.001, help="max_lag of the application's Policy, in seconds. [default: LAGWISE_MAX_LAG, or 5]"
        ),
    ] = None,
    system: Annotated[
        str | None,
        typer.Option(help="system of the application's Router. [default: LAGWISE_SYSTEM, or none]", show_default=False),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.01, max=600, help="Seconds for each connect, and for each question.")
    ] = 5.0,
    everything: Annotated[bool, typer.Option("--all", help="Also what is in order.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for scripts.")] = False,
) -> None:
    """Look at the nodes: reachable, one cluster, streaming, settings, privileges, and room for all connections.

    Nothing is written to them. Exit status: 0 when there is no fault, warnings allowed; 1 for a fault; 2 when the
    command cannot be understood; 130 after Ctrl-C.
    """
    if pooling not in {None, "session", "transaction"}:
        raise typer.BadParameter("session or transaction", param_hint="--pooling")
    try:
        pinned = system_identifier(system) if system is not None else 0
        settings = Settings()
        nodes = named(urls) if urls else configured(settings)
    except ValueError as error:
        fail(error)
    plan = Plan(
        workers=workers,
        pool_size=_first(pool_size, settings.pool_size, DEFAULTS["pool_size"]),
        max_overflow=_first(max_overflow, settings.max_overflow, DEFAULTS["max_overflow"]),
        framed=_first(pooling, settings.pooling, "session") == "transaction",
        max_lag=_first(max_lag, settings.policy.max_lag, 0.0),
        system=pinned or int(settings.system or 0),
    )
    raise typer.Exit(_look(nodes, plan, timeout, everything=everything, as_json=as_json))


def _first(given: T | None, configured: T | None, otherwise: T) -> T:
    return next((each for each in (given, configured) if each is not None), otherwise)


def _look(nodes: Sequence[Named], plan: Plan, timeout: float, *, everything: bool, as_json: bool) -> int:
    if not as_json:
        sys.stderr.write(f"Asking {', '.join(node.name for node in nodes)} ...\n")
    try:
        facts = asyncio.run(ask_all(nodes, timeout=timeout))
    except KeyboardInterrupt:
        sys.stderr.write("Stopped; nothing is left behind.\n")
        return _INTERRUPTED
    verdicts = diagnose(facts, plan)
    if as_json:
        sys.stdout.write(json.dumps(report.as_json(facts, verdicts), indent=2) + "\n")
    else:
        report.show(facts, verdicts, everything=everything)
    return 0 if healthy(verdicts) else _FAULT
