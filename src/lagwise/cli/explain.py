"""``lagwise explain``: where a read would go now, and what a client's token says."""

from __future__ import annotations

import asyncio
import sys
from time import monotonic
from typing import TYPE_CHECKING, Annotated

import typer

from lagwise.cli.opening import clean, fail, router_of

if TYPE_CHECKING:
    from lagwise import Router
    from lagwise._decide.explaining import Explanation

_LOOKS, _LOOK = 40, 0.05  # for how many looks replicas may prove how fresh they are, and the seconds between two


def explain(
    token: Annotated[
        str | None, typer.Argument(help="A client's token: the cookie's value, or the header's.", show_default=False)
    ] = None,
    node: Annotated[
        list[str] | None,
        typer.Option(help="URL of a node, the primary first; otherwise those of the environment.", show_default=False),
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Explain a write, not a read.")] = False,
    primary: Annotated[bool, typer.Option("--primary", help="A read that asks for the primary.")] = False,
    max_staleness: Annotated[
        float | None, typer.Option(min=0, help="Seconds by which the read may be behind.", show_default=False)
    ] = None,
) -> None:
    """Tell where a read would go now, what keeps it off each replica, and what a client's token says.

    A signed token is verified with LAGWISE_SECRET. Staleness is counted from the start of this command: a replica that
    is behind by then is shown as lagging.

    Exit status: 0 when it would be served, 1 when not, 2 when nothing could be asked.
    """
    try:
        from lagwise.settings import Settings  # noqa: PLC0415 - needs the extra

        secret = Settings().secrets if token is not None and "." in token else None
        found = asyncio.run(_explained(router_of(node or ()), token, secret, write, primary, max_staleness))
    except (ImportError, ValueError, OSError) as error:
        fail(error)
    sys.stdout.write("\n".join(clean(line, 1000) for line in str(found).splitlines()) + "\n")
    raise typer.Exit(1 if found.error is not None else 0)


async def _explained(
    db: Router, token: str | None, secret: list[str] | None, write: bool, primary: bool, max_staleness: float | None
) -> Explanation:
    from lagwise.errors import InvalidToken  # noqa: PLC0415 - the command line starts faster without

    async with db:
        for _ in range(_LOOKS):
            # One reading of all nodes at a time proves nothing on a busy primary: its position is a little further.
            if not _unproven(db):
                break
            await asyncio.sleep(_LOOK)
        try:
            return db.explain(token, write=write, primary=primary, max_staleness=max_staleness, secret=secret)
        except InvalidToken as error:
            raise ValueError(f"{error}; the middleware ignores it, and its client counts as a new one") from None


def _unproven(db: Router) -> bool:
    view, now = db.view, monotonic()
    return view.primary is not None and view.fresh(now - db.policy.max_lag) < len(view.rotation)
