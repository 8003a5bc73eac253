"""`lagwise demo`: a naive read/write split and lagwise over the same lagging replicas, counted live."""

from __future__ import annotations

import asyncio
import importlib.util
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Annotated, Any

import typer

_NEEDED = ("fastapi", "uvicorn", "httpx")
_UNUSABLE = 2  # the exit status for "the demo could not be played"; 1 is "it was, and did not hold"


def demo(
    seconds: Annotated[float, typer.Option(min=0.5, help="How long each of the two phases takes.")] = 8.0,
    clients: Annotated[int, typer.Option(min=1, max=200, help="How many clients; every other one only reads.")] = 16,
    serve: Annotated[bool, typer.Option("--serve", help="Keep everything up for the browser, until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object at the end, for scripts.")] = False,
) -> None:
    """Show how many stale reads replication lag causes with a naive read/write split, and with lagwise.

    Exit status: 0 when lagwise missed no write and the naive split did, 1 otherwise, 2 when something needed
    is missing, 130 after Ctrl-C.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        remedy = 'pip install "lagwise[cli,fastapi,embedded]"'
        sys.stderr.write(f"lagwise: {' and '.join(missing)} missing: {remedy}\n")
        raise typer.Exit(_UNUSABLE)
    status = 128 + signal.SIGINT
    with suppress(KeyboardInterrupt):  # before our own handler is there, and after it
        status = _play(seconds, clients, serve=serve, as_json=as_json)
    raise typer.Exit(status)


def _play(seconds: float, clients: int, *, serve: bool, as_json: bool) -> int:
    from lagwise.cli.demo.play import play  # noqa: PLC0415 - needs the extras checked above
    from lagwise.testing import ClusterError  # noqa: PLC0415 - the command line starts faster without

    try:
        return asyncio.run(
            _interruptible(lambda hold: play(seconds, clients, serve=serve, as_json=as_json, closing=hold))
        )
    except (ClusterError, OSError) as error:
        sys.stderr.write(f"lagwise: {error}\n")
        return _UNUSABLE


async def _interruptible(work: Callable[[Callable[[], None]], Coroutine[Any, Any, int]]) -> int:
    """Cancel the work at the first Ctrl-C or SIGTERM; nothing stops it once it is cleaning up."""
    task = asyncio.current_task()
    assert task is not None
    loop, received, closing = asyncio.get_running_loop(), list[signal.Signals](), asyncio.Event()

    def stop(number: signal.Signals) -> None:
        received.append(number)
        if not closing.is_set():
            closing.set()
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    status = 0
    try:
        status = await work(closing.set)
    except asyncio.CancelledError:
        if not received:
            raise
        sys.stderr.write("Stopped; nothing is left behind.\n")
    return 128 + received[0] if received else status
