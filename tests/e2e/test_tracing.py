"""Spans over OTLP, from worker processes to a receiver process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import deadletter
from deadletter import DeadLetterQueue, Task

pytestmark = pytest.mark.full

RECEIVER = Path(__file__).parents[1] / "otlp_receiver.py"
APP = """
import os
from deadletter import DeadLetterQueue, current_attempt
from deadletter.adapters.tracing import DistributedTracing

dlq = DeadLetterQueue(os.environ["URL"], DistributedTracing("shop", "2.0"), retry=[0.01], max_retries=1)

@dlq.processor("flaky")
async def flaky(task):
    if current_attempt().number == 1:
        raise ConnectionError("reset")
"""
WORK = """
import anyio
from seen import dlq, Task

async def work():
    async with dlq:
        await dlq.worker().run_until_idle()
        while (await dlq.stats()).by_state["pending"]:
            await dlq.worker().run_until_idle()

anyio.run(work)
"""


def test_three_processes_tell_one_story(tmp_path: Path) -> None:
    (tmp_path / "seen.py").write_text(APP + "\nfrom deadletter import Task\n")
    url = f"sqlite:///{tmp_path / 't.db'}"
    receiver = subprocess.Popen(
        [sys.executable, str(RECEIVER)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert receiver.stderr is not None
        port = receiver.stderr.readline().strip()
        here = str(Path(deadletter.__file__).parents[1])
        environ = {
            **os.environ,
            "URL": url,
            "PYTHONPATH": here,
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        }
        send = "from seen import dlq, Task; dlq.sync.enqueue_many([Task(type='flaky') for _ in range(20)]); dlq.sync.aclose()"
        for script in (send, WORK):
            subprocess.run([sys.executable, "-c", script], env=environ, cwd=tmp_path, check=True, timeout=60)
    finally:
        receiver.terminate()
        out, _ = receiver.communicate(timeout=30)
    spans = [json.loads(line) for line in out.splitlines()]
    [sent] = [span for span in spans if span["name"] == "enqueue_many default"]
    attempts = {span["span"]: span for span in spans if span["name"] == "process default"}
    assert len(attempts) == 40
    first = [span for span in attempts.values() if span["links"] == [sent["span"]]]
    second = [span for span in attempts.values() if len(span["links"]) == 2]
    assert (len(first), len(second)) == (20, 20)
    assert {span["status"] for span in first} == {"reset"}
    assert {span["links"][0] for span in second} == {sent["span"]}
    assert {span["links"][1] for span in second} == {span["span"] for span in first}
    assert len({span["trace"] for span in spans if span["name"] == "process default"}) == 40
    assert {span["service"] for span in spans} == {"shop 2.0"}
    dlq = DeadLetterQueue(url)
    assert dlq.sync.stats().by_state["succeeded"] == 20
    dlq.sync.aclose()
    assert Task(type="flaky").metadata == {}, "who does not trace adds nothing"
