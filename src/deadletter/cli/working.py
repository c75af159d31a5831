"""The command that works: worker."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager
from typing import Annotated

import anyio
import attrs
from cyclopts import Parameter

from ..engine.lazy import adopt, made
from ..engine.queue import DeadLetterQueue
from ..engine.worker import Worker
from ..settings import import_module, known_queues
from .exits import DONE, INTERRUPTED, BadUse
from .flags import Switch, Target, length
from .logs import LogForm, log_to_stderr
from .session import make_queue

log = logging.getLogger("deadletter.cli")

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_LAST_PORT = 65535
_Many = Annotated[tuple[str, ...], Parameter(negative="", consume_multiple=True, show_default=False)]


async def worker(
    *,
    modules: Annotated[_Many, Parameter(name="--import")] = (),
    types: _Many = (),
    concurrency: int = 32,
    processes: int = 1,
    grace: str = "25s",
    metrics_port: int | None = None,
    metrics_host: str = "127.0.0.1",
    log_form: Annotated[LogForm | None, Parameter(name="--log")] = None,
    supervised: Annotated[Switch, Parameter(show=False)] = False,
    target: Target | None = None,
) -> int:
    """Run a worker until it is told to stop: SIGTERM or SIGINT drains it, a second one stops it at once.

    Example: deadletter worker --app shop.tasks:dlq --processes 2

    Args:
        modules: Import these modules, too; without --app their queues are worked on.
        types: Take only these types, names or globs.
        concurrency: The most attempts at a time, in each process.
        processes: So many worker processes; one that dies is started again.
        grace: How long attempts may go on after the first signal.
        metrics_port: Serve Prometheus metrics there; with --processes each process has a port of its own, from here on.
        metrics_host: On this address.
        log_form: How to log on stderr (default: plain on a terminal, else json).
    """
    log_to_stderr(log_form)
    if processes < 1:
        raise BadUse(f"--processes: {processes} is no number of processes; give 1 or more")
    shutdown_grace = length("--grace", grace) or 0
    target = target or Target()
    queues = _queues(target, modules)
    workers = [
        queue.worker(concurrency=concurrency, types=types or None, shutdown_grace=shutdown_grace) for queue in queues
    ]
    for one in workers:
        if not one.types:
            raise BadUse(f"--types: none of the registered types matches {', '.join(types)}")
    if processes > 1:
        from .supervisor import supervise

        tokens = _tokens(target, modules, types, concurrency, grace, log_form)
        ports = _ports(metrics_port, metrics_host, processes)
        return await supervise(tokens, processes, grace=shutdown_grace, own=ports)
    with _metrics(queues, metrics_port, metrics_host):
        return await _work(queues, workers, supervised=supervised)


def _metrics(queues: Sequence[DeadLetterQueue], port: int | None, host: str) -> AbstractContextManager[object]:
    if port is None:
        return contextlib.nullcontext()
    if not 0 <= port <= _LAST_PORT:
        raise BadUse(f"--metrics-port: {port} is no port; give 0 to {_LAST_PORT} (0: the system chooses one)")
    from ..metrics import served

    return served(queues, port, host=host)


def _ports(first: int | None, host: str, processes: int) -> list[list[str]]:
    """What each worker process is told of its own page: neighbours cannot listen on one port."""
    if first is None:
        return []
    ports = [first + n if first else 0 for n in range(processes)]
    if first < 0 or ports[-1] > _LAST_PORT:
        raise BadUse(f"--metrics-port: {processes} ports from {first} on are not all within 0 to {_LAST_PORT}")
    return [["--metrics-port", str(port), f"--metrics-host={host}"] for port in ports]


def _queues(target: Target, modules: Sequence[str]) -> list[DeadLetterQueue]:
    """The queues to work on: the app's, or those of the imported modules."""
    app = target.app or os.environ.get("DEADLETTER_APP")
    if app:
        queue = make_queue(attrs.evolve(target, app=app), create=True)
        for module in modules:
            import_module(module, setting="--import")
        adopt(queue)
        if not queue.registry.types():
            raise BadUse(f"{app} has no processors; register some in its module, or --import the one that does")
        return [queue]
    if target.url is not None:
        os.environ["DEADLETTER_URL"] = target.url
    if target.queue is not None:
        os.environ["DEADLETTER_QUEUE"] = target.queue
    for module in modules:
        import_module(module, setting="--import")
    lazily = made()  # by functions whose decorator names a URL or the environment
    queues = [queue for queue in dict.fromkeys((*lazily, *known_queues())) if queue.registry.types()] if modules else []
    if not queues:
        raise BadUse(
            "there is nothing to run: name a queue with processors by --app module:attribute, or --import modules"
        )
    return queues


async def _work(queues: Sequence[DeadLetterQueue], workers: Sequence[Worker], *, supervised: bool) -> int:
    try:
        for queue in queues:
            await queue.open()
        with anyio.open_signal_receiver(*_SIGNALS) as signals:
            if supervised:
                _watch_stdin(workers)
            async with anyio.create_task_group() as group:
                group.start_soon(_obey, signals, workers)
                async with anyio.create_task_group() as running:
                    for one, queue in zip(workers, queues, strict=True):
                        log.info("worker %s takes %s from %s", one.name, ", ".join(one.types), queue.backend.url)
                        running.start_soon(one.run)
                group.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            for queue in queues:
                await queue.aclose()
    log.info("stopped")
    return DONE


async def _obey(signals: AsyncIterator[signal.Signals], workers: Sequence[Worker]) -> None:
    told = 0
    async for number in signals:
        told += 1
        if told > 1:
            log.warning("%s again: leaving at once; what runs is tried again when its lease lapses", number.name)
            logging.shutdown()
            os._exit(INTERRUPTED if number == signal.SIGINT else 128 + number)
        log.info(
            "%s: draining %d attempts; a second one stops at once", number.name, sum(one.running for one in workers)
        )
        for one in workers:
            one.stop()


def _watch_stdin(workers: Sequence[Worker]) -> None:
    """Drain when stdin ends: it is a pipe from the supervisor, whose end must leave no orphan."""

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 1024):
                pass
        for one in workers:
            one.stop()

    threading.Thread(target=watch, name="deadletter-stdin", daemon=True).start()


def _tokens(
    target: Target, modules: Sequence[str], types: Sequence[str], concurrency: int, grace: str, log_form: LogForm | None
) -> list[str]:
    """The same command line for one process."""
    tokens = ["--concurrency", str(concurrency), "--grace", grace]
    for name, text in attrs.asdict(target).items():
        tokens += [f"--{name}={text}"] if text is not None else []
    tokens += ["--import", *modules] if modules else []
    tokens += ["--types", *types] if types else []
    return [*tokens, "--log", log_form] if log_form else tokens
