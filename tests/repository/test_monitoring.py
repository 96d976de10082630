"""What watches the service: the dashboard, the alerts, the compose file and their documentation agree with the code."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import Metric

from app.api.problems import PROBLEMS
from app.serving.service import Service
from app.settings import Settings
from tests.support.pages import section, table_rows

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "deploy" / "monitoring"
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
ALERT_TESTS = sorted(MONITORING.glob("*_test.yaml"))
OF_SEVERAL_WORKERS = {"predictor_workers_ready", "predictor_worker_restarts_total"}
OF_PROMETHEUS = {"up"}


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((MONITORING / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    text = (MONITORING / "grafana" / "dashboards" / "image-predictor.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def queries() -> Iterator[str]:
    """Yields every expression of the dashboard and the rules."""
    yield from (rule["expr"] for rule in rules())
    board = dashboard()
    yield from (target["expr"] for panel in board["panels"] for target in panel.get("targets", []))
    yield from (note["expr"] for note in board["annotations"]["list"])
    yield from (variable["definition"] for variable in board["templating"]["list"])


def names_in(query: str) -> set[str]:
    """Returns the metrics that an expression asks for."""
    return set(re.findall(r"\b(?:predictor(?::\w+)+|predictor_\w+|process_\w+|python_gc_\w+|up(?=\{))", query))


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> list[Metric]:
    """Every metric of a service."""
    service = Service(Settings(model_store=tmp_path_factory.mktemp("empty")))
    return list(service.metrics.registry.collect())


def names_of(family: Metric) -> set[str]:
    """Returns the names that Prometheus knows a metric by."""
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}.get(family.type, [""])
    return {family.name + suffix for suffix in suffixes}


def documented(family: Metric) -> str:
    return f"{family.name}_total" if family.type == "counter" else family.name


def test_dashboard_and_alerts_ask_for_what_the_service_shows(families: list[Metric]) -> None:
    shown = set().union(*(names_of(family) for family in families))
    recorded = {rule["record"] for rule in rules() if "record" in rule}

    for query in queries():
        assert names_in(query), query
        assert names_in(query) <= shown | recorded | OF_SEVERAL_WORKERS | OF_PROMETHEUS, query


def test_labels_that_are_asked_for_exist(families: list[Metric]) -> None:
    """Those of the service, and those that Prometheus adds."""
    labels = {label for family in families for label in family_labels(family)} | {"le", "instance", "job"}

    for query in queries():
        grouped = re.findall(r"\b(?:by|on) \(([^)]*)\)", query)
        matched = re.findall(r"([a-z_]+)\s*(?:=~|!~|!=|=)\s*\"", query)
        assert {label.strip() for group in grouped for label in group.split(",")} | set(matched) <= labels, query


def family_labels(family: Metric) -> set[str]:
    """Returns the labels of a metric, which only its documentation has while nothing is counted."""
    (row,) = [row for row in metric_rows() if row[0].strip("`") == documented(family)]
    return set(re.findall(r"`(\w+)`", row[1]))


def metric_rows() -> list[list[str]]:
    return table_rows(section(OPERATIONS, "Metrics"))


def test_every_metric_is_documented(families: list[Metric]) -> None:
    assert {documented(family) for family in families} <= {row[0].strip("`") for row in metric_rows()}
    assert all(len(row) == 3 and row[2] for row in metric_rows())


def test_documented_labels_are_the_labels() -> None:
    metrics = Service(Settings()).metrics
    rows = {row[0].strip("`"): re.findall(r"`(\w+)`", row[1]) for row in metric_rows()}
    checked = 0
    for metric in vars(metrics).values():
        names = getattr(metric, "_labelnames", None)
        if names is not None:
            (family,) = metric.describe()
            assert rows[documented(family)] == list(names)
            checked += 1

    assert checked > 10


def test_every_alert_is_documented_with_what_to_do() -> None:
    alerts = [[f"`{rule['alert']}`", rule["labels"]["severity"]] for rule in rules() if "alert" in rule]
    rows = table_rows(section(OPERATIONS, "Alerts"))

    assert [row[:2] for row in rows] == alerts
    assert all(row[2] for row in rows)


def test_every_error_is_documented_for_operators() -> None:
    rows = table_rows(section(OPERATIONS, "Errors"))

    assert {f"`{code}`" for code in PROBLEMS} <= {row[0] for row in rows}


def test_every_alert_is_tested() -> None:
    raised = {
        case["alertname"]
        for file in ALERT_TESTS
        for test in yaml.safe_load(file.read_text(encoding="utf-8"))["tests"]
        for case in test["alert_rule_test"]
        if case["exp_alerts"]
    }

    assert raised == {rule["alert"] for rule in rules() if "alert" in rule}


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool, of the package prometheus")
def test_alerts_are_raised_by_what_they_are_for() -> None:
    tested = subprocess.run(["promtool", "test", "rules", *map(str, ALERT_TESTS)], capture_output=True, text=True)

    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_panels_lie_side_by_side() -> None:
    panels = dashboard()["panels"]
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        covered = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not covered & cells, panel["title"]
        cells |= covered

    assert len({panel["id"] for panel in panels}) == len(panels)


def test_compose_file_mounts_what_is_there_and_sets_what_exists() -> None:
    compose = yaml.safe_load((MONITORING / "compose.yaml").read_text(encoding="utf-8"))
    services = compose["services"]
    mounted = [volume.split(":")[0] for each in services.values() for volume in each.get("volumes", [])]
    variables = {name.removeprefix("PREDICTOR_").lower() for name in services["predictor"]["environment"]}

    assert all((MONITORING / path).exists() for path in mounted if path.startswith("."))
    assert (MONITORING / services["predictor"]["build"]["context"] / "Dockerfile").exists()
    assert variables <= set(Settings.model_fields)
    assert all(port.startswith("127.0.0.1:") for each in services.values() for port in each.get("ports", []))


def test_prometheus_calls_the_service_as_alerts_and_dashboard_do() -> None:
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text(encoding="utf-8"))
    (job,) = [scrape["job_name"] for scrape in config["scrape_configs"]]

    for query in queries():
        assert set(re.findall(r'job="([^"]*)"', query)) <= {job}
    assert config["rule_files"] == ["alerts.yaml"]
