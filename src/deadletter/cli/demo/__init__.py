"""The command ``demo``: a thousand real deliveries through an outage and a killed worker."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from ..exits import BadUse
from ..flags import Switch

_Hidden = Parameter(show=False)


async def demo(
    *,
    url: str | None = None,
    deliveries: int = 1000,
    json: Switch = False,
    drop_every: Annotated[int, _Hidden] = 0,
) -> int:
    """Watch webhook deliveries survive an outage and a killed worker, with real processes and nothing mocked.

    Example: deadletter demo

    It starts an HTTP receiver on loopback and three workers on a SQLite file,
    kills one worker by SIGKILL, takes the receiver down, replays the failure
    group, and checks its account against the receiver's own log. Exit code 1:
    the account does not close.

    Args:
        url: Where to keep the tasks instead of a new SQLite file in the temporary directory.
        deliveries: How many.
        json: Print the account as one JSON object; the story goes to stderr.
        drop_every: The receiver loses each n-th delivery after it said yes: the account must not close.
    """
    from .play import play
    from .script import Script

    if not 100 <= deliveries <= 100_000:
        raise BadUse(f"--deliveries: {deliveries} makes no demonstration; give 100 to 100000")
    return await play(Script(url=url, deliveries=deliveries, json=json, drop_every=drop_every))
