"""What the demo plays, and the few things its processes must agree on."""

from __future__ import annotations

import attrs

TYPE = "webhook"
RECEIVER = "DEADLETTER_DEMO_RECEIVER"  # the variable that holds its host:port

WORKERS = 3
KILL_AT, DOWN_AT = 0.2, 0.45  # shares of what can be delivered
OUTAGE = 2.0
LONGEST = 60.0  # seconds for each phase; then the account says what is missing
APP = "deadletter.cli.demo.deliveries:queue"


@attrs.frozen(kw_only=True)
class Script:
    """What to play."""

    url: str | None
    deliveries: int
    json: bool = False
    drop_every: int = 0

    @property
    def new_format(self) -> int:
        """How many the receiver cannot read until it is mended."""
        return self.deliveries * 12 // 100

    @property
    def gone(self) -> int:
        """How many are for customers that have left."""
        return 3

    @property
    def concurrency(self) -> int:
        """Per worker: small runs are slower, so that there is a middle to kill in."""
        return max(2, min(8, self.deliveries // 100))
