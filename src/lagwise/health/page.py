"""The status page over HTTP: HTML for people, the same as JSON for machines."""

import re
from base64 import b64encode
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from lagwise.health.accept import prefers_html
from lagwise.health.draining import ProcessDrain
from lagwise.health.models import Overview
from lagwise.health.overview import overview
from lagwise.health.recording import Recording
from lagwise.router import Router

_MEDIA_TYPE = "application/health+json"
_ALWAYS = {"Cache-Control": "no-store", "Vary": "Accept", "X-Content-Type-Options": "nosniff"}
_LARGEST = 2**53  # what JSON's numbers hold exactly


def add_page(router: APIRouter, db: Router, drain: ProcessDrain | None) -> None:
    """Add the page at the router's prefix itself, with and without a slash: a redirect would have to know its host."""
    recording = Recording(db)

    async def _page(
        request: Request,
        since: Annotated[int, Query(ge=-1, le=_LARGEST)] = -1,
        of: Annotated[str | None, Query(max_length=64)] = None,
    ) -> Response:
        if prefers_html(",".join(request.headers.getlist("accept"))):
            return _html()
        answer = overview(recording, since, of, drain)
        code = 503 if answer.status == "fail" else 200
        return Response(answer.model_dump_json(), code, headers=_ALWAYS, media_type=_MEDIA_TYPE)

    for path in ("", "/"):
        router.add_api_route(
            path,
            _page,
            response_model=Overview,
            responses={200: {"content": {"text/html": {}}}, 503: {"description": "fail"}},
            include_in_schema=not path,
            summary="Status Page",
        )


def _html() -> Response:
    text, policy = document()
    headers = {**_ALWAYS, "Content-Security-Policy": policy, "Referrer-Policy": "no-referrer"}
    return Response(text, headers=headers, media_type="text/html")


@cache
def document() -> tuple[str, str]:
    """The page, and the Content-Security-Policy under which it runs: its own script and style, and its own address."""
    text = files("lagwise.health").joinpath("page.html").read_text("utf-8")
    script, style = (_hash(text, tag) for tag in ("script", "style"))
    return text, (
        f"default-src 'none'; script-src {script}; style-src {style}; img-src data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )


def _hash(text: str, tag: str) -> str:
    (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    return f"'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'"
