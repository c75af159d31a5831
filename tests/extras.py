"""What each extra enables, tried where it alone is installed: ``python -m tests.extras redis``, or ``core`` for none.

What is missing must say so by the name of the extra to install.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable

import deadletter
from deadletter import DeadLetterQueue, MissingExtra, Task


def core() -> None:
    """Everything on memory and SQLite."""
    for url in ("memory://", "sqlite:///extras.db"):
        dlq = DeadLetterQueue(url)
        task_id = dlq.sync.enqueue(Task(type="t"))
        assert dlq.sync.process_task(task_id, lambda task: None)
        dlq.sync.aclose()

    @deadletter.dead_lettered(DeadLetterQueue("memory://"), name="doubled")
    def doubled(n: int) -> int:
        return 2 * n

    assert doubled(4) == 8


def redis() -> None:
    DeadLetterQueue("redis://127.0.0.1:1/0")
    DeadLetterQueue("redis+cluster://127.0.0.1:1")
    deadletter.RedisBackend("redis://127.0.0.1:1/0")


def http() -> None:
    from deadletter.http import create_app

    assert callable(create_app(DeadLetterQueue("memory://")))


def cli() -> None:
    subprocess.run([sys.executable, "-m", "deadletter", "--help"], check=True, capture_output=True)
    subprocess.run([sys.executable, "-m", "deadletter", "stats", "--help"], check=True, capture_output=True)


def alerts() -> None:
    from deadletter.alerts import LogAlerter, Monitor, SlackAlerter, WebhookAlerter

    hook = WebhookAlerter("https://example.org/hook", secret="whsec_" + "A" * 32)
    Monitor(DeadLetterQueue("memory://"), [LogAlerter(), hook, SlackAlerter("https://example.org/slack")])


def apprise() -> None:
    from deadletter.alerts import AppriseAlerter

    AppriseAlerter("json://localhost")


def metrics() -> None:
    from deadletter.metrics import DeadLetterCollector

    DeadLetterCollector(DeadLetterQueue("memory://"))


def otel() -> None:
    from deadletter.adapters.tracing import DistributedTracing

    DeadLetterQueue("memory://", DistributedTracing("service", "1.0"))


def breakers() -> None:
    from deadletter.adapters.breakers import breaker_service

    assert breaker_service.breakers["mail"].name == "mail"


TRIED: dict[str, Callable[[], None]] = {
    each.__name__: each for each in (redis, http, cli, alerts, apprise, metrics, otel, breakers)
}


def missing(name: str) -> str | None:
    """What is said where it does not work, None where it does."""
    if name == "cli":
        done = subprocess.run(
            [sys.executable, "-m", "deadletter", "--help"], capture_output=True, text=True, check=False
        )
        return done.stderr if done.returncode else None
    try:
        TRIED[name]()
    except MissingExtra as error:
        return str(error)
    return None


def main(name: str) -> int:
    core()
    if name in TRIED:
        TRIED[name]()
    for other in TRIED:
        said = missing(other)
        if other == name:
            assert said is None, said
        else:
            print(f"{other}: {said or 'works, too'}")
            assert said is None or f"deadletter-sdk[{other}]" in said, said
    assert name != "core" or any(missing(other) for other in TRIED), "nothing is missing: this is no bare installation"
    importlib.import_module("deadletter.testing")
    print(f"{name} does what it says")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
