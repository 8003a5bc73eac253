"""``lagwise cluster up``: a primary and its replicas for a developer at a shell, until Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lagwise.testing import Cluster, ClusterError, Node

app = typer.Typer(help="A real PostgreSQL cluster on this machine.", no_args_is_help=True)


@app.callback()
def cluster() -> None:
    """A real PostgreSQL cluster on this machine."""  # also keeps `up` a subcommand while it is the only one


@app.command()
def up(
    replicas: Annotated[int, typer.Option(min=0, max=20, help="How many replicas.")] = 2,
    apply_delay: Annotated[
        list[float] | None,
        typer.Option(min=0.0, help="Seconds a replica lags: the first is for replica-1, the next for replica-2, ..."),
    ] = None,
    pg_major: Annotated[
        int | None, typer.Option(help="PostgreSQL major version, such as 16; the first one found otherwise.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON when it is up, for scripts.")] = False,
) -> None:
    """Start a primary with streaming replicas, print their URLs, and run until Ctrl-C or SIGTERM."""
    delays = apply_delay or []
    if len(delays) > replicas:
        message = f"{len(delays)} delays for {replicas} replicas"
        raise typer.BadParameter(message, param_hint="--apply-delay")
    try:
        asyncio.run(_up(replicas, delays, pg_major, as_json=as_json))
    except (ClusterError, OSError) as error:
        sys.stderr.write(f"lagwise: {error}\n")
        raise typer.Exit(1) from error


async def _up(replicas: int, delays: list[float], major: int | None, *, as_json: bool) -> None:
    # A signal cancels this task wherever it is, also while servers are starting. What was started is then
    # ended, and a second signal does not stop that.
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    progress = Console(stderr=True, quiet=as_json, highlight=False)
    signals = (signal.SIGINT, signal.SIGTERM)

    def end() -> None:
        for number in signals:
            loop.add_signal_handler(number, lambda: None)
        progress.print("Stopping ...")
        task.cancel()

    for number in signals:
        loop.add_signal_handler(number, end)
    try:
        progress.print(f"Starting a primary and {replicas} replicas ...")
        async with Cluster(replicas, major=major) as cluster:
            for node, delay in zip(cluster.replicas, delays, strict=False):
                await cluster.set_apply_delay(node, delay)
            _announce(cluster, delays, as_json=as_json)
            await asyncio.Event().wait()
    except asyncio.CancelledError:
        progress.print("Stopped; nothing is left behind.")
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


def _announce(cluster: Cluster, delays: list[float], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(_json(cluster) + "\n")
    else:
        _show(cluster, delays)
    sys.stdout.flush()


def _json(cluster: Cluster) -> str:
    nodes = [{"name": node.name, "role": _role(cluster, node), "url": node.url} for node in cluster.nodes.values()]
    return json.dumps({"version": cluster.version, "origin": cluster.origin, "nodes": nodes})


def _role(cluster: Cluster, node: Node) -> str:
    return "primary" if node is cluster.primary else "replica"


def _show(cluster: Cluster, delays: list[float]) -> None:
    lag = dict(zip((node.name for node in cluster.replicas), delays, strict=False))
    table = Table(title=Text(f"PostgreSQL {cluster.version} ({cluster.origin})"), title_justify="left")
    for column in ("name", "role", "URL"):
        table.add_column(column, no_wrap=True)
    for node in cluster.nodes.values():
        delay = lag.get(node.name, 0.0)
        table.add_row(node.name, _role(cluster, node) + (f", {delay:g} s behind" if delay else ""), node.url)
    # Piped or in a narrow terminal, a URL must still come out whole.
    console = Console(highlight=False)
    console = Console(highlight=False, width=max(console.width, 110))
    console.print(table)
    console.print()
    lines = ["db = Router(", f'    primary="{cluster.primary.url}",', "    replicas={"]
    lines += [f'        "{node.name}": "{node.url}",' for node in cluster.replicas]
    lines += ["    },", ")", ""]
    # The names that the README and the examples read. In quotes: a shell must not see a `?` or `&` of a URL.
    lines += [f"export LAGWISE_PRIMARY='{cluster.primary.url}'"]
    lines += [f"export LAGWISE_REPLICAS='{','.join(node.url for node in cluster.replicas)}'"]
    sys.stdout.write("\n".join(lines) + "\n\nCtrl-C stops it.\n")
