"""``lagwise watch``: the status of an application, or of nodes, in a terminal."""

from __future__ import annotations

import asyncio
import importlib.util
from contextlib import suppress
from typing import Annotated

import typer

from lagwise.cli.opening import fail

_NEEDED = ("fastapi", "httpx")


def watch(
    url: Annotated[
        list[str] | None,
        typer.Argument(
            help="The health URL of an application (http://...), or URLs of nodes, the primary first; otherwise the "
            "nodes of the environment.",
            show_default=False,
        ),
    ] = None,
    interval: Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="One look, then an exit status.")] = False,
) -> None:
    """Show the nodes, their staleness and the pools, live, until Ctrl-C.

    Without a terminal, one snapshot is printed at each interval.

    Exit status: 0 after Ctrl-C; with --once 0 when the application serves, 1 when not or when it does not answer; 2
    when nothing could be asked.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        fail(f'{" and ".join(missing)} missing: pip install "lagwise[cli,fastapi]"')
    from lagwise.cli.watch.play import play  # noqa: PLC0415 - needs the extras checked above

    try:
        status = 0
        with suppress(KeyboardInterrupt):
            status = asyncio.run(play(url or [], interval, once=once))
    except (ImportError, ValueError, OSError) as error:
        fail(error)
    raise typer.Exit(status)
