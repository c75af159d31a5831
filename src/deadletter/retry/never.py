"""No retries."""

from __future__ import annotations

import attrs

from ..interfaces.retry_policy import FailedAttempt, RetryPolicy


@attrs.frozen
class Never(RetryPolicy):
    """Give up at the first failure, whatever ``max_retries`` says."""

    @property
    def retries(self) -> float:
        """None at all: 0."""
        return 0

    def delay(self, attempt: FailedAttempt) -> float | None:  # noqa: ARG002 - the same for all
        """Give up."""
        return None
