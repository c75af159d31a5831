"""A scrape of real queues."""

from __future__ import annotations

import urllib.request

import anyio
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from deadletter import BackendUnavailable, DeadLetterQueue, InvalidSetting, PermanentError, Task
from deadletter.backends.memory import MemoryBackend
from deadletter.engine.alerting import alerts_queue
from deadletter.metrics import DeadLetterCollector, exposition, served
from deadletter.testing import VirtualClock

pytestmark = pytest.mark.anyio

OPENMETRICS = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,*/*;q=0.1"


def read(text: str, parser=parse) -> dict[str, float]:
    """Samples as ``name{label=value,...}``; the queue's label is left out."""
    found = {}
    for family in parser(text):
        for sample in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()) if k != "queue")
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture(params=["memory", "sqlite"])
async def dlq(request, tmp_path, clock):
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'm.db'}"
    async with DeadLetterQueue(url, clock=clock, retry=[5], max_retries=1) as queue:
        yield queue


async def scrape(*queues: DeadLetterQueue, accept: str = "") -> dict[str, float]:
    body, content_type = await exposition(list(queues), accept)
    return read(body.decode(), parse_openmetrics if "openmetrics" in content_type else parse)


def fail(_: Task) -> None:
    raise ConnectionError("down")


async def test_a_story_is_told_in_the_guides_names(dlq, clock):
    before = await scrape(dlq)
    first = await dlq.enqueue(Task(type="a", priority="high", idempotency_key="k"))
    assert await dlq.enqueue(Task(type="a", priority="high", idempotency_key="k")) == first
    await dlq.process_task(first, fail)
    await dlq.process_task(first, fail)
    await dlq.retry(first)
    await dlq.process_task(first, lambda _: None)
    dead = await dlq.enqueue(Task(type="b"))
    await dlq.process_task(dead, lambda _: False)
    await dlq.enqueue(Task(type="late"))
    clock.advance(90)
    found = await scrape(dlq)
    assert {name: n - before.get(name, 0) for name, n in found.items() if n != before.get(name, 0)}.items() >= {
        "dlq_items_total{priority=normal}": 1,
        "dlq_items{priority=normal}": 1,
        "task_failures_total{error=ConnectionError,type=a}": 2,
        "task_failures_total{error=deadletter.Rejected,type=b}": 1,
        "task_retry_attempts_total": 2,
        "task_retry_success_total": 1,
        "task_duplicates_total{state=pending}": 1,
        "task_dead_total{reason=retries_exhausted}": 1,
        "task_replayed_total": 1,
        "dlq_oldest_age_seconds": 90,
        "dlq_pending": 1,
        "dlq_overdue": 1,
        "task_duration_seconds_count{outcome=failed,type=a}": 2,
        "task_duration_seconds_count{outcome=succeeded,type=a}": 1,
        "task_duration_seconds_count{outcome=failed,type=b}": 1,
    }.items()
    assert found["dlq_items_total{priority=high}"] == 0


async def test_a_discarded_retry_is_an_attempt_too(dlq):
    from deadletter import Discard

    def give_up(_: Task) -> None:
        raise Discard("nobody wants it")

    task_id = await dlq.enqueue(Task(type="a"))
    await dlq.process_task(task_id, fail)
    await dlq.process_task(task_id, give_up)
    found = await scrape(dlq)
    assert (found["task_retry_attempts_total"], found["task_retry_success_total"]) == (1, 0)


async def test_lateness_and_waiting_are_measured_on_the_stores_clock(dlq, clock):
    await scrape(dlq)  # from here on it measures
    task_id = await dlq.enqueue(Task(type="a", delay=10))
    clock.advance(13)
    await dlq.process_task(task_id, lambda _: None)
    found = await scrape(dlq)
    assert found["task_schedule_lateness_seconds_sum{type=a}"] == 3
    assert found["task_queue_wait_seconds_sum{type=a}"] == 13


async def test_registered_types_have_their_histograms_from_the_start(dlq):
    dlq.processor("known")(lambda _: None)
    found = await scrape(dlq)
    assert found["task_duration_seconds_count{outcome=succeeded,type=known}"] == 0
    assert found["task_duration_seconds_count{outcome=failed,type=known}"] == 0
    assert found["task_queue_wait_seconds_count{type=known}"] == 0


async def test_prometheus_gets_openmetrics_where_it_asks_and_the_numbers_are_the_same(dlq):
    await dlq.enqueue(Task(type="a"))
    plain, asked = await scrape(dlq), await scrape(dlq, accept=OPENMETRICS)
    assert {name: n for name, n in asked.items() if not name.endswith("_created")} == plain
    assert (await exposition(dlq, "text/html"))[1].startswith("text/plain; version=")


async def test_counters_survive_the_process_that_counted(tmp_path):
    url = f"sqlite:///{tmp_path / 'm.db'}"
    for n in (1, 2):
        async with DeadLetterQueue(url) as dlq:
            await dlq.process_task(await dlq.enqueue(Task(type="a")), fail)
            found = await scrape(dlq)
        assert found["task_failures_total{error=ConnectionError,type=a}"] == n


async def test_a_store_that_is_away_is_a_page_that_says_so(caplog):
    class Away(MemoryBackend):
        async def counts(self, queue):
            raise BackendUnavailable("not there")

    dlq = DeadLetterQueue(Away())
    found = await scrape(dlq)
    assert found["dlq_up"] == 0
    assert "dlq_pending" not in found
    assert "not there" in caplog.text


async def test_a_store_that_hangs_holds_a_scrape_no_longer_than_its_patience(monkeypatch, caplog):
    class Hanging(MemoryBackend):
        async def counts(self, queue):
            await anyio.sleep_forever()

    monkeypatch.setattr("deadletter.metrics.collector.PATIENCE", 0.01)
    dlq = DeadLetterQueue(Hanging())
    assert (await scrape(dlq))["dlq_up"] == 0
    registry = CollectorRegistry()
    registry.register(DeadLetterCollector(dlq))
    assert read(generate_latest(registry).decode())["dlq_up"] == 0
    assert "took longer" in caplog.text


async def test_the_users_own_registry_takes_it(dlq):
    registry = CollectorRegistry(auto_describe=True)
    registry.register(DeadLetterCollector(dlq))
    task_id = await dlq.enqueue(Task(type="a"))
    await dlq.process_task(task_id, lambda _: None)
    text = await anyio.to_thread.run_sync(generate_latest, registry)
    found = read(text.decode())
    assert found["task_succeeded_total"] == 1
    assert found["task_duration_seconds_count{outcome=succeeded,type=a}"] == 1
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(DeadLetterCollector(dlq))
    with pytest.raises(TypeError, match="at least one queue"):
        DeadLetterCollector()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_page_of_its_own_serves_all_queues(anyio_backend):
    dlq, other = DeadLetterQueue("memory://"), DeadLetterQueue("memory://", name="other")
    with served([dlq, other], 0) as port:
        url = f"http://127.0.0.1:{port}/metrics"
        text = await anyio.to_thread.run_sync(lambda: urllib.request.urlopen(url, timeout=10).read().decode())
        with pytest.raises(InvalidSetting, match=f"--metrics-port: cannot listen on 127.0.0.1:{port}"):
            served([dlq], port).__enter__()
    assert 'dlq_pending{queue="default"} 0.0' in text
    assert 'dlq_pending{queue="other"} 0.0' in text
    assert text.count("# TYPE dlq_pending gauge") == 1
    assert text.count("# TYPE task_duration_seconds histogram") == 1


async def test_permanent_errors_count_under_their_own_name(dlq):
    def refuse(_: Task) -> None:
        raise PermanentError("no")

    await dlq.process_task(await dlq.enqueue(Task(type="a")), refuse)
    assert (await scrape(dlq))["task_failures_total{error=deadletter.PermanentError,type=a}"] == 1


async def test_alerts_are_counted_by_channel_and_kind(dlq):
    """Over all processes that deliver: they are tasks of a queue beside this one."""

    async def cannot(_: Task) -> None:
        raise ConnectionError("down")

    alerts = DeadLetterQueue(dlq.backend, name=alerts_queue(dlq.name), clock=dlq.clock)
    sent = [Task(type="slack.task_dead"), Task(type="slack.task_dead"), Task(type="mail.two.test")]
    for task in sent:
        await alerts.process_task(await alerts.enqueue(task), lambda _: None)
    await alerts.process_task(await alerts.enqueue(Task(type="slack.overdue")), cannot)
    found = await scrape(dlq)
    assert found["dlq_alerts_sent_total{channel=slack,kind=task_dead}"] == 2
    assert found["dlq_alerts_sent_total{channel=mail.two,kind=test}"] == 1
    assert found["dlq_alerts_failed_total{channel=slack,kind=overdue}"] == 1
    assert found["dlq_alerts_failed_total{channel=email,kind=overdue}"] == 0
    assert found["dlq_monitor_absent"] == 0
