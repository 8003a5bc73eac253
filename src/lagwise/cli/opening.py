"""What commands have in common: a Router of the nodes they are given, and words that are safe to print."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

import typer

if TYPE_CHECKING:
    from lagwise import Router

USAGE = 2  # the exit status for "nothing was asked": a mistake in the arguments, or in the environment


def router_of(urls: Sequence[str]) -> Router:
    """A Router on these URLs, the first being the primary's, or on the nodes of the environment; `name=url` works too.

    Raises:
        ValueError: a setting is missing or makes no sense; no URL is in the message.
        ImportError: pydantic-settings is missing.
    """
    # What the log would say is on the screen; without a handler it would be written into the picture.
    logging.getLogger("lagwise").addHandler(logging.NullHandler())
    from lagwise import Router  # noqa: PLC0415 - the command line starts faster without
    from lagwise.settings.text import by_name  # noqa: PLC0415 - needs the extra

    if not urls:
        return Router.from_env()
    (_, primary), *replicas = ((name, url.get_secret_value()) for name, url in by_name(urls, "URL number").items())
    # What else the environment says, a policy for instance, holds for these nodes as well.
    return Router.from_env(primary=primary, replicas=dict(replicas))


def fail(words: object, status: int = USAGE) -> NoReturn:
    """One line on standard error, and the exit status."""
    sys.stderr.write(f"lagwise: {clean(str(words), 2000)}\n")
    raise typer.Exit(status)


def clean(text: str, most: int = 60) -> str:
    """The text without what a terminal would obey: anything but printable characters is shown by its number."""
    shown = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text[: most + 1])
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"
