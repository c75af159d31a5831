"""When to try again."""

from __future__ import annotations

import abc
import random

import attrs


@attrs.frozen(kw_only=True)
class FailedAttempt:
    """What a policy sees.

    Attributes:
        number: of the attempt that just failed, from 1 (counted from the last reset).
        error: what was raised; None where only its text is left (a preview, a lost worker).
        task_id, type: of the task.
        age: seconds since the task was created (or last replayed).
        random: where jitter comes from.
        now: a monotonic clock in seconds, for policies that count over time.
        max_retries: what the task or its queue asks for; None where the policy's own end decides.
    """

    number: int
    error: BaseException | None = None
    task_id: str = ""
    type: str = ""
    age: float = 0.0
    random: random.Random = attrs.field(factory=random.Random)
    now: float = 0.0
    max_retries: int | None = None


class RetryPolicy(abc.ABC):
    """Decides how long to wait after a failed attempt. Must not block; one object serves many tasks and threads."""

    @property
    def retries(self) -> float | None:
        """How many retries it allows by itself: a count, ``math.inf`` for another end, None where it never ends.

        The queue uses it where neither task nor queue says ``max_retries``; None then means 10.
        """
        return None

    @abc.abstractmethod
    def delay(self, attempt: FailedAttempt) -> float | None:
        """Seconds until the next attempt (≥ 0), or None to give up."""

    def observe(self, now: float) -> None:  # noqa: B027 - most policies do not count
        """Take note that a task's first attempt starts at ``now`` (as ``FailedAttempt.now``). Must not block."""

    def preview(self, n: int, *, seed: int | None = None) -> list[float]:
        """The delays after the first ``n`` attempts that fail one after the other; shorter where it gives up."""
        chance = random.Random(seed)  # noqa: S311 - jitter
        delays: list[float] = []
        age = 0.0
        for number in range(1, n + 1):
            if self.retries is not None and number > self.retries:
                break
            delay = self.delay(FailedAttempt(number=number, age=age, random=chance, now=age, task_id=f"preview-{seed}"))
            if delay is None:
                break
            delays.append(delay)
            age += delay
        return delays
