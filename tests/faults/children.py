"""Processes that the tests start, kill and start again.

``python -m tests.faults.children`` is a fork server: it has imported everything and runs no thread, so that a child
costs a fork. It reads one JSON request a line and answers each with one.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import anyio._backends._asyncio  # a child would have to import it anew each time

from .calls import log_process
from .opening import audited_scripts
from .roles import operator, pauser, producer, worker
from .sqlite_roles import capturer, drainer, migrator

ROLES = {
    "worker": worker,
    "producer": producer,
    "pauser": pauser,
    "operator": operator,
    "migrator": migrator,
    "capturer": capturer,
    "drainer": drainer,
}


def _become(role: str, log_file: str, said: dict[str, Any]) -> None:
    """Be a child, to the end."""
    code = 70
    try:
        log = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for descriptor in (1, 2):
            os.dup2(log, descriptor)
        logging.basicConfig(level=logging.WARNING, format=f"%(process)d {said.get('name')} %(name)s: %(message)s")

        log_process(Path(said["folder"]), f"{said.get('name')}/{os.getpid()}")

        async def run() -> None:
            await ROLES[role](**said)

        anyio.run(run)
        code = 0
    except BaseException:
        logging.getLogger("child").exception("it failed")
    finally:
        os._exit(code)


def _any_death(within: float, living: set[int]) -> tuple[int, int] | None:
    """Who ended, and how: the first; None where nobody has within so many seconds."""
    until = time.monotonic() + within
    while True:
        found, status = os.waitpid(-1, os.WNOHANG)
        if found:
            living.discard(found)
            return found, os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            return None
        time.sleep(0.001)


def serve() -> None:
    """Fork children as asked, and tell how they ended."""
    living: set[int] = set()
    # Kept back in each child until it can drain: a SIGTERM that comes earlier waits, and kills nobody.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "start":
            pid = os.fork()
            if pid == 0:
                _become(request["role"], request["log"], request["said"])
            living.add(pid)
            answer: object = pid
        elif request["do"] == "any":
            answer = _any_death(request["within"], living)
        else:
            found, status = os.waitpid(request["pid"], os.WNOHANG if request["do"] == "poll" else 0)
            answer = os.waitstatus_to_exitcode(status) if found else None
            living.discard(found)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    for pid in living:
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    with audited_scripts():
        serve()
