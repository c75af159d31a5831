"""The guide's Python snippets, as they stand, with only their imports changed: on SQLite by a URL, on a real Redis too."""

from __future__ import annotations

import ast
import inspect
import logging
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis

import deadletter
from deadletter import DeadLetterQueue, PermanentError, Reason, State, Task
from deadletter.adapters.breakers import breaker_service

from ..otlp_receiver import received
from ..redis_servers import valkey

pytestmark = pytest.mark.anyio

GUIDE = Path(__file__).parent / "guide"
IMPORTS = {
    "from dead_letter_queue import DeadLetterQueue, Task": "from deadletter import DeadLetterQueue, Task",
    "from circuit_breakers import breaker_service": "from deadletter.adapters.breakers import breaker_service",
    "from distributed_tracing import DistributedTracing": "from deadletter.adapters.tracing import DistributedTracing",
}
BY_URL = {
    "import redis\n": "\n",
    "redis_client = redis.Redis(decode_responses=True)": "redis_client = URL",
}


async def run(name: str, **names: Any) -> dict[str, Any]:
    """Run a snippet at top level, awaits included; answers the names that it leaves."""
    source = (GUIDE / f"{name}.py.txt").read_text()
    for told, ours in {**IMPORTS, **(BY_URL if "URL" in names else {})}.items():
        source = source.replace(told, ours)
    code = compile(source, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(code, names)  # the only way to run top-level awaits
    if inspect.isawaitable(result):
        await result
    return names


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return valkey().emptied() if request.param == "redis" else f"sqlite:///{tmp_path / 'guide.db'}"


async def test_basic_usage_on_the_redis_that_it_names(monkeypatch):
    """``redis.Redis(decode_responses=True)`` is on localhost:6379; here the default leads to a server of our own."""
    url = valkey().emptied()
    made = []

    def client(**options: Any) -> redis.Redis:
        made.append(redis.Redis.from_url(url, **options))
        return made[-1]

    sent: list[str] = []
    deadletter.RedisBackend(url)  # has its own imports done
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "redis", SimpleNamespace(Redis=client))
        left = await run("basic_usage", send_email=sent.append)
    assert (left["success"], sent) == (True, ["user@example.com"])
    record = await left["dlq"].get(left["task_id"])
    assert (record.state, record.attempts) == (State.SUCCEEDED, 1)
    assert made[0].ping() is True, "the client is still ours"
    await left["dlq"].aclose()
    made[0].close()


async def test_basic_usage(url):
    sent: list[str] = []
    left = await run("basic_usage", URL=url, send_email=sent.append)
    dlq, task_id = left["dlq"], left["task_id"]
    assert (left["success"], sent) == (True, ["user@example.com"])
    assert (await dlq.get(task_id)).state is State.SUCCEEDED
    assert await dlq.enqueue(left["task"]) == task_id
    await dlq.aclose()
    again = await run("basic_usage", URL=url, send_email=sent.append)
    assert (again["task_id"], again["success"]) == (task_id, True), "the key is remembered"
    assert len(sent) == 1, "and nothing is sent twice"
    await again["dlq"].aclose()


async def test_configuration():
    """The guide's settings are our options, by the same names, and our defaults."""
    settings = SimpleNamespace()
    await run("configuration", self=settings)
    assert DeadLetterQueue("memory://", **vars(settings)).options == DeadLetterQueue("memory://").options


async def test_retry_limits(url):
    made: list[Task] = []

    def make(**fields: Any) -> Task:
        made.append(deadletter.Task(**fields))
        return made[-1]

    await run("retry_limits", Task=make)
    assert [(task.type, task.max_retries) for task in made] == [
        ("cache_update", 2),
        ("api_call", 5),
        ("payment_process", 10),
    ]

    def fail(_: Task) -> None:
        raise OSError("down")

    async with DeadLetterQueue(url) as dlq:
        task_id = await dlq.enqueue(made[0])
        for _ in range(3):
            assert await dlq.process_task(task_id, fail) is False
        record = await dlq.get(task_id)
        assert (record.attempts, record.reason) == (3, Reason.RETRIES_EXHAUSTED)


async def test_idempotency_keys(url):
    names = {"Task": Task, "customer_id": 123, "invoice_id": 9}
    first, second = [(await run("idempotency_keys", **names))["task"] for _ in range(2)]
    async with DeadLetterQueue(url) as dlq:
        assert await dlq.enqueue(first) == await dlq.enqueue(second)


async def test_circuit_breakers(url):
    """The sixth failure in a row is never tried: it is put off, and keeps its attempt."""
    breaker_service.breakers.clear()
    calls: list[Any] = []

    async def send_email(payload: Any) -> None:
        calls.append(payload)
        raise ConnectionError("mail is down")

    left = await run("circuit_breakers", send_email=send_email)
    async with DeadLetterQueue(url) as dlq:
        ids = await dlq.enqueue_many([Task(type="send_email", payload={"n": n}) for n in range(6)])
        for task_id in ids:
            assert await dlq.process_task(task_id, left["process_with_circuit_breaker"]) is False
        records = [await dlq.get(task_id) for task_id in ids]
    assert len(calls) == 5
    assert [record.attempts for record in records] == [1, 1, 1, 1, 1, 0]
    assert [record.postpones for record in records] == [0, 0, 0, 0, 0, 1]
    assert {record.state for record in records} == {State.PENDING}
    breaker_service.breakers.clear()


async def test_tracing(url, monkeypatch):
    """The spans go to where Jaeger listens; here, to a receiver of our own."""
    with received() as (endpoint, spans):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        left = await run("tracing", DeadLetterQueue=DeadLetterQueue, redis_client=url)
        dlq = left["dlq"]
        task_id = await dlq.enqueue(Task(type="welcome"))
        await dlq.process_task(task_id, lambda _: None)
        await dlq.aclose()
        left["tracing"].shutdown()
    by_name = {span["name"]: span for span in spans}
    assert {"enqueue default", "process_task default", "process default"} <= set(by_name)
    sent, attempt = by_name["enqueue default"], by_name["process default"]
    assert (sent["kind"], attempt["kind"]) == ("PRODUCER", "CONSUMER")
    assert attempt["links"] == [sent["span"]]
    assert sent["service"] == attempt["service"] == "task-processor 1.0.0"


async def test_failure_types(url, caplog):
    class TemporaryError(Exception):
        pass

    async def process_task(task: Task) -> None:
        if task.type == "temporary":
            raise TemporaryError("try later")
        if task.type == "permanent":
            raise PermanentError("no such account")

    left = await run(
        "failure_types",
        process_task=process_task,
        TemporaryError=TemporaryError,
        PermanentError=PermanentError,
        logger=logging.getLogger("guide"),
    )
    async with DeadLetterQueue(url) as dlq:
        records = {}
        for kind in ("fine", "temporary", "permanent"):
            task_id = await dlq.enqueue(Task(type=kind))
            await dlq.process_task(task_id, left["smart_processor"])
            records[kind] = await dlq.get(task_id)
    assert records["fine"].state is State.SUCCEEDED
    assert (records["temporary"].state, records["temporary"].failure.message) == (State.PENDING, "try later")
    assert (records["permanent"].state, records["permanent"].reason) == (State.DEAD, Reason.REJECTED)
    assert "Permanent failure: no such account" in caplog.text
