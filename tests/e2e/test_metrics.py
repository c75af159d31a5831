"""What a real Prometheus makes of real workers: the guide's expressions give the numbers of our own ledger."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import anyio
import pytest

import deadletter
from deadletter import DeadLetterQueue, Query, Task
from deadletter.metrics import exposition

from ..prometheus_server import SETTLED, Prometheus, prometheus, wait_for
from ..redis_servers import valkey
from ..worker_processes import APP, serving, workers


def send(dlq: DeadLetterQueue, count: int, ledger: Counter[str]) -> None:
    """Enqueue ``count`` tasks of each kind and wait until all have ended."""
    kinds = [("flaky", "normal"), ("broken", "high"), ("refused", "low"), ("fine", "normal")]
    dlq.sync.enqueue_many([Task(type=kind, priority=rank) for kind, rank in kinds for _ in range(count)])
    ledger.update({"flaky ConnectionError": count, "broken OSError": 2 * count})
    ledger.update({"refused deadletter.PermanentError": count})
    ledger.update({"retries": 2 * count, "retries that succeeded": count, "high": count, "low": count})

    def over() -> bool:
        states = dlq.sync.stats().by_state
        return states["pending"] == states["running"] == 0

    wait_for(over, "the end of all tasks")


def agreed(server: Prometheus, ledger: Counter[str], pages: int) -> float | None:
    """A time at which every page showed the ledger's numbers, once there is one.

    What held then can be asked about at leisure: a scrape that takes too long on a busy machine hides its page for a
    second, and would make any of several questions fail that are asked one after the other.
    """
    at = time.time() - SETTLED

    def all_are(expression: str, wanted: float) -> bool:
        found = server.query(expression, at=at)
        return len(found) == pages and all(value == wanted for _, value in found)

    failures = {name: n for name, n in ledger.items() if " " in name and name != "retries that succeeded"}
    held = (
        all(
            all_are(f'task_failures_total{{type="{name.split()[0]}",error="{name.split()[1]}"}}', n)
            for name, n in failures.items()
        )
        and all_are("task_retry_attempts_total", ledger["retries"])
        and all_are("task_retry_success_total", ledger["retries that succeeded"])
        and all(all_are(f'dlq_items_total{{priority="{rank}"}}', ledger[rank]) for rank in ("high", "normal", "low"))
    )
    return at if held else None


@pytest.mark.full
@pytest.mark.parametrize("store", ["sqlite", "redis"])
def test_prometheus_agrees_with_the_ledger_over_processes_and_restarts(tmp_path: Path, store: str) -> None:
    url = valkey().emptied() if store == "redis" else f"sqlite:///{tmp_path / 'm.db'}"
    dlq = DeadLetterQueue(url)
    ledger: Counter[str] = Counter()
    pages = 4
    with ExitStack() as stack:
        running = stack.enter_context(ExitStack())
        ports = running.enter_context(workers(tmp_path, url, 3))
        page = stack.enter_context(serving(tmp_path, url))
        server = stack.enter_context(prometheus(tmp_path / "prometheus", {"workers": ports, "serve": [page]}))
        wait_for(lambda: server.healthy() == pages, "four healthy targets")
        send(dlq, 20, ledger)
        wait_for(lambda: agreed(server, ledger, pages), "the ledger's numbers")
        before = Counter(ledger)

        running.close()  # kill -9, all of them
        running.enter_context(workers(tmp_path, url, 3, ports=ports))
        send(dlq, 30, ledger)
        at = wait_for(lambda: agreed(server, ledger, pages), "the ledger's numbers after the restart")
        for name in ("task_failures_total", "task_retry_attempts_total", "task_retry_success_total"):
            assert all(value == 0 for _, value in server.query(f"resets({name}[10m])", at=at)), f"{name} fell"

        # The guide's lines, one by one.
        for rank in ("high", "normal", "low"):
            assert {value for _, value in server.query(f'dlq_items_total{{priority="{rank}"}}', at=at)} == {
                ledger[rank]
            }
        wanted = ledger["retries that succeeded"] / ledger["retries"]
        ratios = server.query("task_retry_success_total / task_retry_attempts_total", at=at)
        assert (len(ratios), {value for _, value in ratios}) == (pages, {wanted})
        by_name = {
            f"{labels['type']} {labels['error']}": value * 300
            for labels, value in server.query("max without (instance, job) (rate(task_failures_total[5m]))", at=at)
        }
        for name in ("flaky ConnectionError", "broken OSError", "refused deadletter.PermanentError"):
            came = ledger[name] - before[name]  # while the series was there to be seen
            assert came * 0.9 <= by_name[name] <= ledger[name] * 1.5
        sent = server.query("rate(dlq_alerts_sent_total[1h])", at=at)
        assert sent
        assert {value for _, value in sent} == {0.0}, "nobody monitors here"
    dlq.sync.purge(Query(), everything=True)
    dlq.sync.aclose()


@pytest.mark.full
def test_promtool_finds_only_the_guides_own_name_to_complain_of(tmp_path: Path) -> None:
    """``dlq_items_total`` is a gauge; the guide calls it so."""

    async def page() -> bytes:
        async with DeadLetterQueue(f"sqlite:///{tmp_path / 'm.db'}") as dlq:
            dlq.processor("t")(lambda _: False)
            await exposition(dlq)
            await dlq.enqueue_many([Task(type="t"), Task(type='"}\n'.strip() + "ü")])
            await dlq.worker().run_until_idle()
            return (await exposition(dlq))[0]

    done = subprocess.run(
        ["promtool", "check", "metrics"], input=anyio.run(page), capture_output=True, timeout=60, check=False
    )
    told = (done.stdout + done.stderr).decode().splitlines()
    assert told == ['dlq_items_total non-counter metrics should not have "_total" suffix']


@pytest.mark.full
def test_each_of_several_worker_processes_has_a_page_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "seen.py").write_text(APP)
    here = str(Path(deadletter.__file__).parents[1])
    environ = {**os.environ, "URL": f"sqlite:///{tmp_path / 'm.db'}", "PYTHONPATH": here}
    command = [sys.executable, "-m", "deadletter", "worker", "--app", "seen:dlq", "--processes", "2"]
    with (tmp_path / "log").open("wb") as out:
        group = subprocess.Popen(
            [*command, "--metrics-port", "0", "--log", "plain"], env=environ, cwd=tmp_path, stdout=out, stderr=out
        )
    try:

        def ports() -> list[str]:
            found = re.findall(r"metrics are on http://127.0.0.1:(\d+)/metrics", (tmp_path / "log").read_text())
            return found if len(found) == 2 else []

        for port in wait_for(ports, "two pages"):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
                assert b'dlq_pending{queue="default"} 0.0' in page.read()
    finally:
        group.send_signal(signal.SIGTERM)
        assert group.wait(30) == 0
