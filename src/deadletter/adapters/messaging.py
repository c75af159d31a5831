"""Names of OpenTelemetry's conventions for messaging, which are in development: kept here, pinned by the schema."""

from __future__ import annotations

SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"
SYSTEM_NAME = "deadletter"

SYSTEM = "messaging.system"
DESTINATION = "messaging.destination.name"
OPERATION = "messaging.operation.name"
OPERATION_TYPE = "messaging.operation.type"
MESSAGE_ID = "messaging.message.id"
BATCH_COUNT = "messaging.batch.message_count"
ERROR_TYPE = "error.type"
EXCEPTION_TYPE = "exception.type"
EXCEPTION_MESSAGE = "exception.message"
EXCEPTION_STACKTRACE = "exception.stacktrace"

OPERATION_DURATION = "messaging.client.operation.duration"
SENT = "messaging.client.sent.messages"
CONSUMED = "messaging.client.consumed.messages"
PROCESS_DURATION = "messaging.process.duration"

# Ours, where the conventions have no name.
TASK_TYPE = "deadletter.task.type"
ATTEMPT = "deadletter.attempt.number"
OUTCOME = "deadletter.attempt.outcome"
LATE = "deadletter.attempt.lateness"
