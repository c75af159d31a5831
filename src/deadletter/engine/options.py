"""A queue's options, checked once and in one unit: milliseconds."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Literal, TypeAlias

import attrs

from ..interfaces import RetryPolicy
from ..model.errors import InvalidTask
from ..model.retention import Retention
from ..model.task import Duration, Task, seconds
from ..retry import as_policy, retries_allowed
from ..rules.redaction import DEFAULT_PATHS, check_paths, path_mark

RetryLike: TypeAlias = "RetryPolicy | Sequence[timedelta | float]"

GUIDE_DELAYS = (5, 30, 120, 300)


def to_ms(field: str, value: Duration) -> int:
    """A duration in ms; raises InvalidTask that names the field."""
    return round(seconds(field, value) * 1000)


def _at_least(field: str, value: float, least: float) -> None:
    if value < least:
        raise InvalidTask(field, f"{value!r} is too little; give at least {least:g}")


@attrs.frozen(kw_only=True)
class Options:
    """What a DeadLetterQueue was told."""

    name: str
    policy: RetryPolicy
    max_retries: int | None
    keep_letters_ms: int | None
    retention: Retention | None
    keep_finished_ms: int
    on_uncertain: Literal["retry", "dead"]
    release: str | None
    redact: tuple[str, ...]
    redact_defaults: bool
    capture_timeout: float
    alert_threshold: int
    lease_ms: int
    max_lease_losses: int
    max_runtime: float
    key_ms: int
    max_payload_bytes: int

    @property
    def suspicious(self) -> int:
        """How many lease losses make a task run alone: the next one may be its last."""
        return max(1, self.max_lease_losses - 1)

    @property
    def hidden_paths(self) -> tuple[str, ...]:
        """Every path that this process hides."""
        return (*self.redact, *(DEFAULT_PATHS if self.redact_defaults else ()))

    @property
    def redact_mark(self) -> str:
        """The same as it is stored with a row."""
        return path_mark(self.redact, defaults=self.redact_defaults)

    def keep_ended_ms(self, *, keyed: bool) -> int:
        """How long a task that succeeded stays known."""
        return max(self.keep_finished_ms, self.key_ms) if keyed else self.keep_finished_ms

    def uncertain(self, task: Task) -> Literal["retry", "dead"]:
        """What happens to a task whose worker vanished."""
        return task.on_uncertain or self.on_uncertain

    def asked(self, task: Task, max_retries: int | None) -> int | None:
        """How many retries somebody asked for: the task, its processor (``max_retries``) or the queue.

        None where nobody did.
        """
        if task.max_retries is not None:
            return task.max_retries
        return max_retries if max_retries is not None else self.max_retries

    def retries(self, task: Task, max_retries: int | None, policy: RetryPolicy) -> float:
        """How many retries a task gets: what was asked for, else the policy's own end, else 10."""
        return retries_allowed(policy, self.asked(task, max_retries))


def make_options(
    *,
    name: str,
    retry: RetryLike | None,
    retry_delays: Sequence[timedelta | float] | None,
    max_retries: int | None,
    dlq_ttl: Duration | None,
    retention: Retention | None,
    keep_finished: Duration,
    on_uncertain: Literal["retry", "dead"],
    release: str | None,
    redact: Sequence[str],
    redact_defaults: bool,
    capture_timeout: Duration,
    alert_threshold: int,
    lease: Duration,
    max_lease_losses: int,
    max_runtime: Duration,
    idempotency_ttl: Duration,
    max_payload_bytes: int,
) -> Options:
    """Check every option; raises InvalidTask (a ValueError) that names it, TypeError for two retry schedules."""
    if retry is not None and retry_delays is not None:
        raise TypeError("retry and retry_delays say the same thing; give one of them")
    if not isinstance(name, str) or not 1 <= len(name) <= 100 or not name.isprintable():
        raise InvalidTask("name", f"{name!r} is no queue name; give 1-100 printable characters")
    check_paths(redact)
    if on_uncertain not in ("retry", "dead"):
        raise InvalidTask("on_uncertain", f'{on_uncertain!r} is not one of "retry", "dead"')
    if max_retries is not None:
        Task(type="check", max_retries=max_retries)
    if not isinstance(retention, Retention | None):
        raise InvalidTask("retention", f"{retention!r} is no Retention; give Retention(count=1000), or None")
    lease_ms = to_ms("lease", lease)
    _at_least("lease", lease_ms / 1000, 0.05)
    _at_least("keep_finished", seconds("keep_finished", keep_finished), 900)
    _at_least("max_lease_losses", max_lease_losses, 1)
    _at_least("max_payload_bytes", max_payload_bytes, 1)
    schedule = retry if retry is not None else retry_delays if retry_delays is not None else GUIDE_DELAYS
    return Options(
        name=name,
        policy=as_policy(schedule),
        max_retries=max_retries,
        keep_letters_ms=to_ms("dlq_ttl", dlq_ttl) if dlq_ttl is not None else None,
        retention=retention,
        keep_finished_ms=to_ms("keep_finished", keep_finished),
        on_uncertain=on_uncertain,
        release=release if release is not None else os.environ.get("DEADLETTER_RELEASE") or None,
        redact=tuple(redact),
        redact_defaults=redact_defaults,
        capture_timeout=seconds("capture_timeout", capture_timeout),
        alert_threshold=alert_threshold,
        lease_ms=lease_ms,
        max_lease_losses=max_lease_losses,
        max_runtime=seconds("max_runtime", max_runtime) or math.inf,
        key_ms=to_ms("idempotency_ttl", idempotency_ttl),
        max_payload_bytes=max_payload_bytes,
    )
