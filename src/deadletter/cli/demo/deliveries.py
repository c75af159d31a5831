"""What the demo's workers run: ``deadletter worker --app deadletter.cli.demo.deliveries:queue``."""

from __future__ import annotations

import http.client
import json
import os

from ...engine.queue import DeadLetterQueue
from ...model.outcome import PermanentError
from ...model.task import Task
from .script import RECEIVER, TYPE

# Short enough for a demonstration: killed work comes back within three seconds, a cause is dead within five.
LEASE = 2.0
RETRY_DELAYS = (0.25, 0.5, 1, 2)


class ServerError(Exception):
    """The receiver could not take a delivery; another time it may."""


queue = DeadLetterQueue.from_env(lease=LEASE, retry_delays=RETRY_DELAYS, release="demo")


@queue.processor(TYPE)
def deliver(task: Task) -> None:
    """POST one webhook; the receiver keeps its own log of what arrived."""
    host, _, port = os.environ[RECEIVER].partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    try:
        headers = {"webhook-id": task.id, "content-type": "application/json"}
        connection.request("POST", "/webhooks", json.dumps(task.payload), headers)
        answer = connection.getresponse()
        said = answer.read(1000).decode()
    finally:
        connection.close()
    if answer.status == http.HTTPStatus.GONE:
        raise PermanentError(f"410 {said}")
    if answer.status != http.HTTPStatus.OK:
        raise ServerError(f"{answer.status} {said}")
