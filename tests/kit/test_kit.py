"""What is shipped under docs/kit does what it says."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from deadletter import DeadLetterQueue, Task
from deadletter.cli.app import make_app
from deadletter.metrics.collector import DeadLetterCollector

from ..prometheus_server import prometheus, wait_for
from ..worker_processes import workers

KIT = Path(__file__).parents[2] / "docs" / "kit"
ROOT = Path(__file__).parents[2]
RULES = KIT / "prometheus" / "alerts.yml"
DASHBOARD = KIT / "grafana" / "deadletter.json"
NAMES = re.compile(r"\b(?:dlq|task|deadletter)_[a-z_]+")


def rules() -> list[dict[str, Any]]:
    [group] = yaml.safe_load(RULES.read_text())["groups"]
    return group["rules"]


def expressions() -> Iterator[tuple[str, str]]:
    """Title and expression of each panel's queries."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def exposed() -> set[str]:
    names = set()
    for metric in DeadLetterCollector(DeadLetterQueue("memory://")).describe():
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(metric.type, ("",))
        names |= {metric.name + suffix for suffix in suffixes}
    return names


def test_each_name_that_a_rule_or_panel_asks_for_is_exposed() -> None:
    asked = {name for rule in rules() for name in NAMES.findall(rule["expr"])}
    asked |= {name for _, expression in expressions() for name in NAMES.findall(expression)}
    assert asked <= exposed()


def test_each_alert_has_a_runbook_and_each_runbook_an_alert() -> None:
    told = {ROOT / rule["annotations"]["runbook_url"] for rule in rules()}
    assert told == set((KIT / "runbooks").glob("*.md"))


def test_each_alert_has_a_test_that_fires_and_one_that_does_not() -> None:
    tests = yaml.safe_load((KIT / "prometheus" / "alerts_test.yml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    names = {rule["alert"] for rule in rules()}
    assert {case["alertname"] for case in cases if case.get("exp_alerts")} == names
    assert {case["alertname"] for case in cases if not case.get("exp_alerts")} == names


def test_the_dashboards_data_source_is_a_variable() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert {panel["datasource"]["uid"] for panel in dashboard["panels"]} == {"${datasource}"}
    assert [variable["name"] for variable in dashboard["templating"]["list"]] == ["datasource", "queue"]
    assert all("$queue" in expression for _, expression in expressions())
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    assert len({(place["x"], place["y"]) for place in places}) == len(places)
    assert max(place["x"] + place["w"] for place in places) == 24


def commands() -> Iterator[tuple[str, list[str]]]:
    """Where a command line of ours stands, and its words."""
    services = yaml.safe_load((KIT / "compose.yml").read_text())["services"]
    for name, service in services.items():
        if "build" in service:
            yield f"compose {name}", service["command"]
    for path in (KIT / "kubernetes").glob("*.yml"):
        for document in yaml.safe_load_all(path.read_text()):
            if document["kind"] == "Deployment":
                yield path.name, document["spec"]["template"]["spec"]["containers"][0]["args"]
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.read(KIT / "systemd" / "deadletter-worker.service")
    yield "systemd", shlex.split(unit["Service"]["ExecStart"])[1:]
    steps = yaml.safe_load((KIT / "ci" / "github-actions.yml").read_text())["jobs"]["deploy"]["steps"]
    yield "ci", shlex.split(steps[-1]["run"])[1:]
    docker = (KIT / "Dockerfile").read_text()
    yield "Dockerfile healthcheck", json.loads(re.search(r"HEALTHCHECK .* CMD (\[.*\])", docker)[1])[1:]
    yield "Dockerfile", json.loads(re.search(r"^CMD (\[.*\])", docker, re.MULTILINE)[1])


@pytest.mark.parametrize(("place", "words"), list(commands()), ids=[place for place, _ in commands()])
def test_each_command_line_is_one_that_we_take(place: str, words: list[str]) -> None:
    app = make_app()
    if words[0] not in app:
        assert words[0] in {"serve", "monitor"}, "they are rooms of their own"
        return
    command, _, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    assert command.__name__ == words[0]


def test_nothing_runs_as_root() -> None:
    assert re.search(r"^USER 10001$", (KIT / "Dockerfile").read_text(), re.MULTILINE)
    for path in (KIT / "kubernetes").glob("*.yml"):
        for document in yaml.safe_load_all(path.read_text()):
            if document["kind"] == "Deployment":
                pod = document["spec"]["template"]["spec"]
                assert pod["securityContext"]["runAsNonRoot"] is True
                assert pod["containers"][0]["securityContext"]["allowPrivilegeEscalation"] is False
    assert "User=deadletter" in (KIT / "systemd" / "deadletter-worker.service").read_text()


def test_compose_publishes_nothing_beyond_this_machine() -> None:
    services = yaml.safe_load((KIT / "compose.yml").read_text())["services"]
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert {"redis", "worker", "serve", "monitor", "prometheus", "grafana", "jaeger"} == set(services)
    mounted = [volume.split(":")[0] for service in services.values() for volume in service.get("volumes", [])]
    assert all((KIT / path).exists() for path in mounted if path.startswith("./"))


@pytest.mark.full
@pytest.mark.parametrize(
    "words",
    [
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts_test.yml"),
        ("check", "config", "prometheus.yml"),
    ],
    ids=" ".join,
)
def test_promtool_agrees(words: tuple[str, ...]) -> None:
    done = subprocess.run(
        ["promtool", *words], cwd=KIT / "prometheus", capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.full
def test_each_panel_shows_something_of_a_real_run(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'k.db'}"
    dlq = DeadLetterQueue(url)
    with ExitStack() as stack:
        ports = stack.enter_context(workers(tmp_path, url, 2))
        server = stack.enter_context(prometheus(tmp_path / "prometheus", {"deadletter-worker": ports}, rules=[RULES]))
        wait_for(lambda: server.healthy() == 2, "two healthy targets")
        left = {(title, expression) for title, expression in expressions()}

        def all_show() -> bool:
            dlq.sync.enqueue_many([Task(type=kind) for kind in ("flaky", "broken", "fine") for _ in range(5)])
            for title, expression in sorted(left):
                asked = expression.replace("$queue", ".*").replace("$__rate_interval", "30s")
                if server.query(asked):
                    left.discard((title, expression))
            return not left

        try:
            wait_for(all_show, "samples for each panel")
        except AssertionError as error:
            raise AssertionError(f"nothing for {left}") from error
        groups = server.ask("rules")["groups"]
        health = {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}
        assert set(health) == {rule["alert"] for rule in rules()}
        wait_for(lambda: _evaluated(server), "an evaluation of the rules")
    dlq.sync.aclose()


def _evaluated(server: Any) -> bool:
    found = [rule for group in server.ask("rules")["groups"] for rule in group["rules"]]
    assert not any(rule["health"] == "err" for rule in found), [rule.get("lastError") for rule in found]
    return all(rule["health"] == "ok" for rule in found)


def test_the_unit_waits_for_a_drain() -> None:
    """As far as its file goes: no systemd runs here."""
    unit = configparser.ConfigParser(interpolation=None, strict=True)
    unit.optionxform = str
    unit.read(KIT / "systemd" / "deadletter-worker.service")
    assert unit["Service"]["KillSignal"] == "SIGTERM"
    assert float(unit["Service"]["TimeoutStopSec"]) > 25 + 15, "grace, and what the supervisor adds"
    assert os.path.isabs(shlex.split(unit["Service"]["ExecStart"])[0])
