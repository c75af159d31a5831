"""Spans and OpenTelemetry metrics of a queue, as the SDK's in-memory exporter sees them."""

from __future__ import annotations

import json
import logging
import sys
from types import SimpleNamespace

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import messaging_attributes
from opentelemetry.semconv._incubating.metrics import messaging_metrics
from opentelemetry.semconv.attributes import error_attributes, exception_attributes
from opentelemetry.semconv.schemas import Schemas
from opentelemetry.trace import SpanKind, StatusCode

from deadletter import DeadLetterQueue, Discard, Postpone, Task, TaskNotFound
from deadletter.adapters import messaging
from deadletter.adapters.logs import TaskContext
from deadletter.adapters.tracing import DistributedTracing
from deadletter.testing import VirtualClock

pytestmark = pytest.mark.anyio


class Seen:
    """What was exported."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])
        self.tracing = DistributedTracing("shop", "1.2", tracer_provider=self.provider, meter_provider=self.meters)

    def spans(self, name: str):
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def points(self):
        data = self.reader.get_metrics_data()
        return {
            metric.name: list(metric.data.data_points)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture(params=["memory", "sqlite"])
async def dlq(request, tmp_path, seen):
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 't.db'}"
    async with DeadLetterQueue(url, seen.tracing, clock=VirtualClock(), retry=[0], name="mail") as queue:
        yield queue


def fail(task: Task) -> None:
    raise ConnectionError(f"no route for {task.payload.get('password')}")


async def test_enqueue_is_a_producer_span_whose_context_travels_with_the_task(dlq, seen):
    with seen.provider.get_tracer("web").start_as_current_span("GET /signup") as request:
        task_id = await dlq.enqueue(Task(type="welcome", metadata={"tenant": "x"}))
    [span] = seen.spans("enqueue mail")
    assert (span.kind, span.parent.span_id) == (SpanKind.PRODUCER, request.get_span_context().span_id)
    assert span.attributes == {
        "messaging.system": "deadletter",
        "messaging.destination.name": "mail",
        "messaging.operation.name": "enqueue",
        "messaging.operation.type": "send",
        "messaging.message.id": task_id,
    }
    metadata = (await dlq.get(task_id)).task.metadata
    context = span.get_span_context()
    flags = f"{context.trace_flags:02x}"
    assert metadata == {"tenant": "x", "traceparent": f"00-{context.trace_id:032x}-{context.span_id:016x}-{flags}"}


async def test_each_attempt_is_a_trace_that_links_to_the_producer_and_the_attempt_before(dlq, seen):
    task_id = await dlq.enqueue(Task(type="welcome"))
    with seen.provider.get_tracer("web").start_as_current_span("somebody else's"):
        await dlq.process_task(task_id, fail)
    await dlq.process_task(task_id, lambda _: None)
    [sent] = seen.spans("enqueue mail")
    first, second = seen.spans("process mail")
    assert first.kind is second.kind is SpanKind.CONSUMER
    assert first.parent is None
    assert second.parent is None
    assert len({span.get_span_context().trace_id for span in (sent, first, second)}) == 3
    assert [link.context.span_id for link in first.links] == [sent.context.span_id]
    assert [link.context.span_id for link in second.links] == [sent.context.span_id, first.context.span_id]
    assert [link.attributes["deadletter.link"] for link in second.links] == ["producer", "earlier attempt"]
    assert (first.attributes["deadletter.attempt.number"], second.attributes["deadletter.attempt.number"]) == (1, 2)
    assert second.attributes["messaging.message.id"] == task_id
    assert second.attributes["deadletter.task.type"] == "welcome"
    assert second.status.status_code is StatusCode.UNSET


async def test_workers_trace_as_process_task_does(dlq, seen):
    @dlq.processor("welcome", max_retries=1)
    async def welcome(task):
        fail(task)

    await dlq.enqueue_many([Task(type="welcome"), Task(type="welcome")])
    await dlq.worker().run_until_idle()
    [sent] = seen.spans("enqueue_many mail")
    assert sent.attributes["messaging.batch.message_count"] == 2
    spans = seen.spans("process mail")
    assert len(spans) == 4
    assert all(span.links[0].context.span_id == sent.context.span_id for span in spans)
    assert sorted(len(span.links) for span in spans) == [1, 1, 2, 2]


async def test_an_error_is_on_its_span_without_payload_or_hidden_values(dlq, seen):
    task_id = await dlq.enqueue(Task(type="welcome", payload={"password": "hunter2-hunter2", "to": "ann@example.com"}))
    await dlq.process_task(task_id, fail)
    [span] = seen.spans("process mail")
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "no route for [redacted]")
    assert span.attributes["error.type"] == "ConnectionError"
    assert span.attributes["deadletter.attempt.outcome"] == "failed"
    [event] = span.events
    assert event.name == "exception"
    assert event.attributes["exception.type"] == "ConnectionError"
    assert "in fail" in event.attributes["exception.stacktrace"]
    whole = json.dumps([json.loads(each.to_json()) for each in seen.exporter.get_finished_spans()])
    assert "hunter2" not in whole
    assert "ann@example.com" not in whole


@pytest.mark.parametrize(("raised", "outcome"), [(Postpone(5), "postponed"), (Discard("gone"), "discarded")])
async def test_what_is_no_failure_is_no_error(dlq, seen, raised, outcome):
    def processor(_):
        raise raised

    await dlq.process_task(await dlq.enqueue(Task(type="welcome")), processor)
    [span] = seen.spans("process mail")
    assert (span.attributes["deadletter.attempt.outcome"], span.status.status_code) == (outcome, StatusCode.UNSET)


async def test_a_call_that_fails_is_an_error_on_its_span(dlq, seen):
    with pytest.raises(TaskNotFound):
        await dlq.retry("nobody")
    [span] = seen.spans("retry mail")
    assert (span.kind, span.status.status_code) == (SpanKind.INTERNAL, StatusCode.ERROR)
    assert span.attributes["error.type"] == "deadletter.TaskNotFound"
    assert span.events == ()


async def test_spans_of_a_processor_are_inside_its_attempt(dlq, seen):
    def processor(_):
        with seen.provider.get_tracer("mailer").start_as_current_span("smtp"):
            pass

    await dlq.process_task(await dlq.enqueue(Task(type="welcome")), processor)
    [inner], [outer] = seen.spans("smtp"), seen.spans("process mail")
    assert inner.parent.span_id == outer.context.span_id


@pytest.mark.parametrize("text", ["", "garbage", "00-0-0-01", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "\x00"])
async def test_metadata_that_is_no_context_makes_no_link(dlq, seen, text):
    task_id = await dlq.enqueue(Task(type="welcome", metadata={"traceparent": text, "tracestate": "\u2028=,"}))
    assert await dlq.process_task(task_id, lambda _: None) is True
    [span] = seen.spans("process mail")
    assert not span.links


async def test_the_conventions_metrics_are_there(dlq, seen):
    await dlq.enqueue_many([Task(type="welcome"), Task(type="welcome")])
    task_id = await dlq.enqueue(Task(type="welcome"))
    await dlq.process_task(task_id, fail)
    points = seen.points()
    assert sum(point.value for point in points["messaging.client.sent.messages"]) == 3
    assert sum(point.value for point in points["messaging.client.consumed.messages"]) == 1
    [process] = points["messaging.process.duration"]
    assert (process.count, process.attributes["error.type"]) == (1, "ConnectionError")
    by_name = {
        point.attributes["messaging.operation.name"]: point for point in points["messaging.client.operation.duration"]
    }
    assert by_name["enqueue"].count == 1
    assert "messaging.message.id" not in by_name["enqueue"].attributes, "that would make a series for each task"


async def test_log_records_carry_task_and_trace(dlq, seen):
    records = []

    class Keep(logging.Handler):
        def emit(self, record):
            records.append(record)

    logger = logging.getLogger("test_tracing.mailer")
    logger.setLevel(logging.INFO)
    handler = Keep()
    handler.addFilter(TaskContext())
    logger.addHandler(handler)

    def processor(_):
        logger.info("sending")
        logger.info("of another", extra={"task_id": "its own"})

    task_id = await dlq.enqueue(Task(type="welcome"))
    await dlq.process_task(task_id, processor)
    logger.info("outside")
    logger.removeHandler(handler)
    [span] = seen.spans("process mail")
    first, second, outside = records
    assert (first.task_id, first.task_type, first.attempt) == (task_id, "welcome", 1)
    assert first.trace_id == f"{span.context.trace_id:032x}"
    assert first.span_id == f"{span.context.span_id:016x}"
    assert second.task_id == "its own"
    assert not hasattr(outside, "task_id")
    assert not hasattr(outside, "trace_id")


def test_without_a_provider_it_makes_one_that_names_the_service(monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    tracing = DistributedTracing("task-processor", "1.0.0")
    resource = tracing._own.resource.attributes
    assert (resource["service.name"], resource["service.version"]) == ("task-processor", "1.0.0")
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider), "the process's own stays its own"
    assert repr(tracing) == "DistributedTracing('task-processor', '1.0.0')"
    tracing.shutdown()


def test_it_takes_the_provider_that_is_set_up(monkeypatch, seen):
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: seen.provider)
    tracing = DistributedTracing("shop")
    with tracing.operation("purge", queue="q"):
        pass
    tracing.shutdown()
    assert [span.name for span in seen.exporter.get_finished_spans()] == ["purge q"], "and it is not shut down with it"


def test_without_an_exporter_it_says_what_to_install(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    DistributedTracing("shop").shutdown()
    assert 'pip install "deadletter-sdk[otel]"' in caplog.text


def test_names_are_those_of_the_conventions():
    known = {
        value
        for module in (messaging_attributes, messaging_metrics, error_attributes, exception_attributes)
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, str)
    }
    ours = SimpleNamespace(**vars(messaging))
    named = {
        value for name, value in vars(ours).items() if name.isupper() and name not in {"SCHEMA_URL", "SYSTEM_NAME"}
    }
    assert {name for name in named if not name.startswith("deadletter.")} <= known
    assert messaging.SCHEMA_URL in {schema.value for schema in Schemas}
