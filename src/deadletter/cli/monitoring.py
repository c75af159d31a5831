"""The command that tells people: monitor."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import anyio
from cyclopts import Parameter

from ..alerts.environment import alerters_from_env, monitor_options
from ..model.errors import BackendUnavailable
from .exits import DONE, FAILED, BadUse
from .flags import Switch, Target
from .logs import LogForm, log_to_stderr
from .output import harmless
from .session import make_queue

if TYPE_CHECKING:
    from ..alerts.monitor import Monitor, Tested
    from ..engine.queue import DeadLetterQueue

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_NONE = "no channel is configured: set SMTP_HOST and ALERT_EMAIL, SLACK_WEBHOOK_URL, ALERT_WEBHOOK_URL or ALERT_APPRISE_URLS"


async def monitor(
    *,
    test_alert: Switch = False,
    log_form: Annotated[LogForm | None, Parameter(name="--log")] = None,
    target: Target | None = None,
) -> int:
    """Watch a queue and tell people, until it is told to stop.

    Example: deadletter monitor --test-alert

    The channels are those of the environment (SMTP_HOST, ALERT_EMAIL, SLACK_WEBHOOK_URL, ALERT_WEBHOOK_URL, ...), and
    the log. Any number may run; one of them is elected. With --test-alert the exit code is 0 where every channel took
    it, 1 where some did not, and 2 where none is configured or a value is bad.

    Args:
        test_alert: Send a test alert through every channel that is configured, say what became of each, and leave.
        log_form: How to log on stderr (default: plain on a terminal, else json).
    """
    alerters = alerters_from_env(os.environ)
    options = monitor_options(os.environ)
    if test_alert and not alerters:
        raise BadUse(_NONE)
    from ..alerts.logged import LogAlerter
    from ..alerts.monitor import Monitor

    queue = make_queue(target or Target(), create=True)
    if test_alert:
        return _told(await Monitor(queue, alerters, **options).test())
    log_to_stderr(log_form)
    return await _watch(queue, Monitor(queue, [*alerters, LogAlerter()], **options))


def _told(found: Sequence[Tested]) -> int:
    for each in found:
        print(harmless(f"{each.channel}: {'sent' if each.error is None else f'failed: {each.error}'}"))
    return FAILED if any(each.error is not None for each in found) else DONE


async def _watch(queue: DeadLetterQueue, watcher: Monitor) -> int:
    try:
        await _open(queue)
        with anyio.open_signal_receiver(*_SIGNALS) as signals:
            async with anyio.create_task_group() as group:
                group.start_soon(watcher.run)
                async for _ in signals:
                    break
                group.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await queue.aclose()
    return DONE


async def _open(queue: DeadLetterQueue) -> None:
    """Connect; a store that starts later than we do, as after a reboot, is waited for a while."""
    for wait in (0.5, 1, 2, 4, 8):
        try:
            return await queue.open()
        except BackendUnavailable:
            await anyio.sleep(wait)
    return await queue.open()
