"""The command line: one typer application, one module per command."""

from __future__ import annotations

import typer

from lagwise.cli import cluster
from lagwise.cli.demo import demo
from lagwise.cli.doctor import doctor
from lagwise.cli.explain import explain
from lagwise.cli.watch import watch

app = typer.Typer(
    name="lagwise",
    help="Read from PostgreSQL replicas without reading the past.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(cluster.app, name="cluster")
app.command()(demo)
app.command()(explain)
app.command()(watch)
app.command()(doctor)
