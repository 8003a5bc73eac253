"""The dashboard, the alert rules and the page of metrics name what there is, and all of it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lagwise.prometheus import Collector
from tests.kit.metrics import Scraped, fleet, promtool, registered, scrape

ROOT = Path(__file__).parents[2]
HERE = ROOT / "examples" / "observability"
DASHBOARD, ALERTS, PAGE = HERE / "dashboard.json", HERE / "alerts.yml", ROOT / "docs" / "metrics.md"
METRIC = re.compile(r"\blagwise_\w+")
# What a rule or a panel is about, at least.
ALERTED = (
    "NoPrimary", "MonitorBlind", "NoReplicaInRotation", "ReplicaLagging", "FallBacksHigh", "TokensIgnored",
    "PoolExhausted",
)  # fmt: skip


@pytest.fixture(scope="module")
def scraped() -> Scraped:
    """A scrape of a Router with three nodes."""
    return scrape(registered(fleet(3)))


def strings(value: Any) -> Iterator[tuple[str, str]]:
    """All texts in a JSON value, each with the key that it stands under."""
    pairs = value.items() if isinstance(value, dict) else (("", each) for each in value)
    for key, each in pairs:
        if isinstance(each, str):
            yield key, each
        elif isinstance(each, dict | list):
            yield from strings(each)


def queries() -> list[str]:
    """Every query of the dashboard."""
    return [text for key, text in strings(json.loads(DASHBOARD.read_text())) if key in {"expr", "query", "definition"}]


@pytest.mark.parametrize("path", [DASHBOARD, ALERTS, HERE / "README.md", PAGE], ids=lambda path: path.name)
def test_every_metric_that_is_named_exists(path: Path, scraped: Scraped) -> None:
    """Whoever copies a query finds its metric."""
    named = set(METRIC.findall(path.read_text()))
    assert named
    families = {family.name for family in scraped.families}
    assert named - scraped.names - families == set()


def test_the_dashboard_and_the_page_leave_nothing_out(scraped: Scraped) -> None:
    """Each metric is on the page; each is on the dashboard as well, but for the ones that say how to read others."""
    every = {family.name + ("_total" if family.type == "counter" else "") for family in scraped.families}
    assert every - set(METRIC.findall(PAGE.read_text())) == set()
    shown = {name.removesuffix("_bucket") for query in queries() for name in METRIC.findall(query)}
    assert every - shown == set()


def rows(page: str) -> dict[str, set[str]]:
    """The labels that the page gives each metric, from the tables that have such a column."""
    tables = re.findall(r"^\| Metric \| Labels \|.*\n\|[-| ]+\n((?:\|.*\n)+)", page, re.M)
    cells = [line.split("|")[1:3] for table in tables for line in table.splitlines()]
    return {metric.strip(" `"): set(re.findall(r"`(\w+)`", labels)) for metric, labels in cells}


def test_the_page_gives_each_metric_its_labels() -> None:
    """As the collector describes them."""
    described = {
        family.name + ("_total" if family.type == "counter" else ""): set(getattr(family, "_labelnames", ()))
        for family in Collector(fleet(2)).describe()
    }
    assert rows(PAGE.read_text()) == described


def test_there_is_an_alert_for_what_matters() -> None:
    """Each with a name, a severity and a sentence."""
    text = ALERTS.read_text()
    alerts = re.findall(r"- alert: Lagwise(\w+)", text)
    assert set(ALERTED) <= set(alerts)
    assert len(alerts) == len(set(alerts)) == text.count("severity: ") == text.count("summary: ")


def test_every_panel_has_a_query_and_a_place_of_its_own() -> None:
    """No panel covers another one, and none is empty."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: dict[tuple[int, int], str] = {}
    for panel in panels:
        assert panel["type"] == "row" or all(target["expr"] for target in panel["targets"])
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} covers {taken[x, y]}"
                assert x < 24
                taken[x, y] = panel["title"]


async def test_promtool_accepts_the_rules() -> None:
    """As `promtool check rules` says."""
    assert "SUCCESS" in await promtool("check", "rules", ALERTS)


async def test_promtool_accepts_the_queries_of_the_dashboard(tmp_path: Path) -> None:
    """Each is PromQL, once Grafana has put in its variables."""
    groups = []
    written = [query for query in queries() if not query.startswith(("prometheus", "label_values"))]
    for number, query in enumerate(written):
        expression = query.replace("$__rate_interval", "5m").replace("$job", ".*").replace("$instance", ".*")
        groups.append(f"  - record: r{number}\n    expr: {json.dumps(expression)}\n")
    assert len(groups) > 20
    file = tmp_path / "queries.yml"
    file.write_text("groups:\n- name: dashboard\n  rules:\n" + "".join(groups))
    assert "SUCCESS" in await promtool("check", "rules", file)


async def test_the_alerts_fire_when_they_should(tmp_path: Path) -> None:
    """Made-up series, read by Prometheus itself: each alert of what matters fires for its fault, and not without it."""
    text = (HERE / "alerts_test.yml").read_text()
    assert {f"Lagwise{name}" for name in ALERTED} <= set(re.findall(r"alertname: (\w+)", text))
    assert "SUCCESS" in await promtool("test", "rules", HERE / "alerts_test.yml")
