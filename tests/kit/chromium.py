"""A Chromium that is installed, driven by Playwright: pages, and what a page complained of."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROGRAM = Path("/usr/bin/chromium")
AXE = Path(__file__).parents[2] / ".npm" / "node_modules" / "axe-core" / "axe.min.js"
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
_QUIETLY = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@dataclass
class Look:
    """A page that is open. `complaints`: errors in its console; `asked`: every address that it asked for something."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)

    def text(self, selector: str) -> Any:
        """The text that a person sees there."""
        return self.page.locator(selector).inner_text()

    async def says(self, selector: str, words: str) -> None:
        """Wait until there is an element for the selector with these words."""
        await self.page.locator(selector).filter(has_text=words).first.wait_for(timeout=20_000)


@asynccontextmanager
async def chromium() -> AsyncIterator[Any]:
    """A browser without a window."""
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=str(PROGRAM), args=_QUIETLY)
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def looking(browser: Any, url: str, **options: Any) -> AsyncIterator[Look]:
    """A page at this address, with what `browser.new_context` takes."""
    context = await browser.new_context(**{"viewport": DESKTOP, **options})
    try:
        look = Look(await context.new_page())
        look.page.on("console", lambda said: look.complaints.append(said.text) if said.type == "error" else None)
        look.page.on("pageerror", lambda error: look.complaints.append(str(error)))
        look.page.on("request", lambda request: look.asked.add(request.url.partition("?")[0]))
        await look.page.goto(url)
        yield look
    finally:
        await context.close()
