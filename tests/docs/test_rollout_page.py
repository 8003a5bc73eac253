"""docs/rollout.md: its application, and each of its steps in order, does what the page says."""

import asyncio
import subprocess
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from lagwise._client.cookies import Jar
from lagwise._decide.shadow import Shadow
from lagwise._nodes import shadowing
from lagwise.testing import Cluster, wait_until
from tests.kit.http import http, opened, reason_of
from tests.kit.routers import both_in_rotation

from .pages import ROOT, blocks, run, table

PAGE = ROOT / "docs" / "rollout.md"
STEPS = [block.code.strip() for block in blocks(PAGE) if block.language == "sh"]


def test_the_table_of_counts_is_the_value() -> None:
    """Every count is on the page, and none that is not there; so are the bound and the age of the cookie."""
    counts = {field.name for field in fields(Shadow)} | {"share"}
    assert {row[0] for row in table(PAGE, "`db.shadow`")} == counts
    text = PAGE.read_text()
    assert f"while {shadowing._MOST} others" in text
    assert f"Max-Age={90 * 24 * 3600};" in Jar().set_bucket(0)
    assert "for 90 days" in text


async def test_each_step_does_what_it_says(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """0, 1 %, 10 %, 100 % and back, by the page's own commands; at no step does a client miss its write."""
    for name, value in {
        "LAGWISE_PRIMARY": cluster.primary.url,
        "LAGWISE_REPLICAS": ",".join(replica.url for replica in cluster.replicas),
        "LAGWISE_SECRET": "a secret for tests",
        "OFFLOAD": str(tmp_path / "offload"),
    }.items():
        monkeypatch.setenv(name, value)
    (shown,) = (block for block in blocks(PAGE) if block.language == "python")
    soon = replace(shown, code=shown.code.replace("asyncio.sleep(1)", "asyncio.sleep(0.02)"))
    module: Any = await run([soon], {}, monkeypatch)
    async with opened(module.api, lambda _: module.app) as app:
        await both_in_rotation(module.db)
        shares = []
        for number, step in enumerate(STEPS):
            await asyncio.to_thread(
                subprocess.run, ["sh", "-c", step], check=True, env={"OFFLOAD": str(module.OFFLOAD)}
            )
            share = float(step.split()[1])
            await wait_until(lambda share=share: module.db.offload == share, what=step)  # type: ignore[misc]
            shares.append(share)
            for bucket in (0, 50_000, 999_999):
                async with http(app) as client:
                    client.cookies.set("lagwise-offload", f"{bucket:06d}")
                    name = f"step {number} {bucket}"
                    held = (await client.get(f"/items/{name}")).headers["lagwise-route"].endswith("held-back")
                    assert held == (bucket >= share * 1_000_000)
                    assert (await client.post(f"/items/{name}")).status_code == 200
                    own = await client.get(f"/items/{name}")
                    assert (own.json(), reason_of(own) == "held-back") == (1, held)
        assert shares == [0, 0.01, 0.1, 1, 0]
        for wrong in ("", "ten", "10"):
            module.OFFLOAD.write_text(wrong)
            await asyncio.sleep(0.1)
            assert module.db.offload == 0
        held_back = 2 * (3 + 2 + 1 + 0 + 3)
        await wait_until(lambda: module.db.shadow.reads == held_back, what="each held-back read is judged")
        async with http(app) as client:
            told = (await client.get("/rollout")).json()
        assert (told["reads held back"], told["share for replicas"]) == (held_back, module.db.shadow.share)
