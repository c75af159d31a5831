"""OpenTelemetry traces and metrics of a queue: ``DeadLetterQueue(backend, DistributedTracing("shop", "1.0.0"))``.

Storing a task is a producer span, each attempt a consumer span in a trace of its own, which links to the producer's and
to that of the failed attempt before it. A task carries its producer's context in its metadata (W3C ``traceparent``).
Payloads and hidden values are never on a span.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..interfaces.instrumentation import AttemptSpan, AttemptStart, Instrumentation
from ..model.errors import MissingExtra
from ..model.outcome import Failed, Outcome
from ..model.task import Task
from ..rules.error_text import type_name
from . import messaging as names

try:
    from opentelemetry import metrics, trace
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, SpanKind, Status, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ModuleNotFoundError as missing:
    raise MissingExtra("otel", "deadletter.adapters.tracing") from missing

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

log = logging.getLogger("deadletter.tracing")

_SENDING = {"enqueue", "enqueue_many", "capture"}
_ROOT = Context()
_W3C = TraceContextTextMapPropagator()
_DESCRIPTION = 200  # characters of an error's message in a span's status


class DistributedTracing(Instrumentation):
    """Traces a queue.

    Without a provider it takes the one that OpenTelemetry was set up with; where there is none it makes one that
    exports over OTLP/HTTP as the ``OTEL_*`` variables say (by default to ``http://localhost:4318``, where Jaeger
    listens; ``OTEL_TRACES_EXPORTER=none`` keeps it from exporting).

    Args:
        name: of the service, as it is found in the traces.
        version: of the service.
        tracer_provider: where spans go. meter_provider: where metrics go; default: the one that is set up, if any.
    """

    def __init__(
        self,
        name: str = "deadletter",
        version: str = "",
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        self.name, self.version = name, version
        self._own: Any = None
        provider = tracer_provider or trace.get_tracer_provider()
        if isinstance(provider, trace.ProxyTracerProvider):
            provider = self._own = _exporting(name, version)
        self.tracer = provider.get_tracer(name, version or None, schema_url=names.SCHEMA_URL)
        meters = meter_provider or metrics.get_meter_provider()
        meter = meters.get_meter(name, version or None, schema_url=names.SCHEMA_URL)
        self._operations = meter.create_histogram(names.OPERATION_DURATION, "s", "How long calls to the queue took.")
        self._processes = meter.create_histogram(names.PROCESS_DURATION, "s", "How long attempts took.")
        self._sent = meter.create_counter(names.SENT, "{message}", "Tasks sent to the queue.")
        self._consumed = meter.create_counter(names.CONSUMED, "{message}", "Tasks given to a processor.")

    def __repr__(self) -> str:
        return f"DistributedTracing({self.name!r}, {self.version!r})"

    def shutdown(self) -> None:
        """Export what is left and stop, where the provider is its own; a process that ends does so by itself."""
        if self._own is not None:
            self._own.shutdown()

    @contextmanager
    def operation(self, name: str, *, queue: str, task_id: str | None = None, count: int = 1) -> Iterator[None]:
        """A span around a call: of kind producer where it stores tasks."""
        sending = name in _SENDING
        told = {names.SYSTEM: names.SYSTEM_NAME, names.DESTINATION: queue, names.OPERATION: name}
        if sending:
            told[names.OPERATION_TYPE] = "send"
        more: dict[str, str | int] = {}
        if task_id is not None:
            more[names.MESSAGE_ID] = task_id
        if name == "enqueue_many":
            more[names.BATCH_COUNT] = count
        began = time.perf_counter()
        kind = SpanKind.PRODUCER if sending else SpanKind.INTERNAL
        with self.tracer.start_as_current_span(
            f"{name} {queue}",
            kind=kind,
            attributes={**told, **more},
            record_exception=False,  # what it says may quote a payload
            set_status_on_exception=False,
        ) as span:
            try:
                yield
            except Exception as error:
                told[names.ERROR_TYPE] = type_name(error)
                span.set_attribute(names.ERROR_TYPE, told[names.ERROR_TYPE])
                span.set_status(Status(StatusCode.ERROR, told[names.ERROR_TYPE]))
                raise
            finally:
                self._operations.record(time.perf_counter() - began, told)
                if sending:
                    self._sent.add(count if name == "enqueue_many" else 1, told)

    def metadata(self) -> Mapping[str, str]:
        """The current span's context, for whoever processes the task."""
        carrier: dict[str, str] = {}
        _W3C.inject(carrier)
        return carrier

    @contextmanager
    def attempt(self, task: Task, *, queue: str, number: int, start: AttemptStart) -> Iterator[AttemptSpan]:
        """A consumer span, the root of a trace of its own."""
        told = {
            names.SYSTEM: names.SYSTEM_NAME,
            names.DESTINATION: queue,
            names.OPERATION: "process",
            names.OPERATION_TYPE: "process",
        }
        own: dict[str, str | float] = {
            names.MESSAGE_ID: task.id,
            names.TASK_TYPE: task.type,
            names.ATTEMPT: number,
            names.LATE: start.late,
        }
        self._consumed.add(1, told)
        began = time.perf_counter()
        with self.tracer.start_as_current_span(
            f"process {queue}",
            context=_ROOT,
            kind=SpanKind.CONSUMER,
            attributes={**told, **own},
            links=_links(task, start),
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            watched = _Span(span, start, told)
            try:
                yield watched
            finally:
                self._processes.record(time.perf_counter() - began, told)


class _Span(AttemptSpan):
    def __init__(self, span: Span, start: AttemptStart, told: dict[str, str]) -> None:
        self._span, self._start, self._told = span, start, told
        carrier: dict[str, str] = {}
        _W3C.inject(carrier, trace.set_span_in_context(span, _ROOT))
        self.traceparent = carrier.get("traceparent")

    def ended(self, outcome: Outcome) -> None:
        """Tell how it ended; an error by its type and its story, without hidden values."""
        self._span.set_attribute(names.OUTCOME, type(outcome).__name__.lower())
        if not isinstance(outcome, Failed):
            return
        error = type_name(outcome.error)
        self._told[names.ERROR_TYPE] = error
        if not self._span.is_recording():
            return
        story = self._start.told(outcome.error)
        message = story.rpartition("\n")[2].removeprefix(f"{error}: ")
        self._span.set_attribute(names.ERROR_TYPE, error)
        self._span.set_status(Status(StatusCode.ERROR, message[:_DESCRIPTION]))
        self._span.add_event(
            "exception",
            {names.EXCEPTION_TYPE: error, names.EXCEPTION_MESSAGE: message, names.EXCEPTION_STACKTRACE: story},
        )


def _links(task: Task, start: AttemptStart) -> list[Link]:
    """To whoever stored the task, and to the failed attempt before; what is no traceparent makes no link."""
    links = []
    for carrier, role in ((task.metadata, "producer"), ({"traceparent": start.earlier or ""}, "earlier attempt")):
        context = trace.get_current_span(_W3C.extract(dict(carrier), _ROOT)).get_span_context()
        if context.is_valid:
            links.append(Link(context, {"deadletter.link": role}))
    return links


def _exporting(name: str, version: str) -> TracerProvider:
    """A provider for a process that has set up none."""
    try:
        from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
        from opentelemetry.sdk.trace import TracerProvider as SdkProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as missing:
        raise MissingExtra("otel", "deadletter.adapters.tracing without a tracer_provider") from missing
    about = {SERVICE_NAME: name} | ({SERVICE_VERSION: version} if version else {})
    provider = SdkProvider(resource=Resource.create(about))
    if os.environ.get("OTEL_TRACES_EXPORTER", "otlp") == "none":
        return provider
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ModuleNotFoundError:
        log.warning('spans of %s go nowhere: pip install "deadletter-sdk[otel]", or give a tracer_provider', name)
        return provider
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


__all__ = ["DistributedTracing"]
