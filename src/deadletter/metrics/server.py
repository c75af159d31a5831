"""A page for Prometheus in a process that serves nothing else: a worker."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, start_http_server

from ..model.errors import InvalidSetting
from .collector import DeadLetterCollector

if TYPE_CHECKING:
    from ..engine.queue import DeadLetterQueue

log = logging.getLogger("deadletter.metrics")


@contextmanager
def served(queues: Sequence[DeadLetterQueue], port: int, *, host: str = "127.0.0.1") -> Iterator[int]:
    """Serve ``/metrics`` from a thread until the block ends; gives the port (0 lets the system choose one).

    Raises InvalidSetting where it cannot listen there.
    """
    registry = CollectorRegistry()
    registry.register(DeadLetterCollector(*queues))
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except (OSError, OverflowError) as error:
        raise InvalidSetting("--metrics-port", f"cannot listen on {host}:{port}: {error}") from error
    log.info("metrics are on http://%s:%d/metrics", host, server.server_port)
    try:
        yield int(server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join(2)
