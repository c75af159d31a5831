"""The public API as users type it. mypy and pyright check this file; nothing runs it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, assert_type

from deadletter import (
    BulkResult,
    Captured,
    DeadLetterQueue,
    Event,
    Priority,
    Query,
    Task,
    TaskRecord,
    dead_lettered,
)
from deadletter.retry import Exponential

dlq = DeadLetterQueue("memory://")


# A decorated function keeps its parameters and what it returns.


@dead_lettered(dlq)
async def charge(customer_id: int, amount: Decimal = Decimal(1)) -> str:
    return f"{customer_id}: {amount}"


@dead_lettered(
    "sqlite:///letters.db", name="ship", retry=Exponential(), max_retries=5, inline_retries=2, priority="high"
)
def ship(order: int, *, express: bool) -> bool:
    return express


@dead_lettered
def bare(order: int) -> bytes:
    return bytes(order)


@dead_lettered
async def bare_async(order: int) -> bytes:
    return bytes(order)


@dead_lettered()
def empty(order: int) -> bytes:
    return bytes(order)


async def calls() -> None:
    assert_type(await charge(1, Decimal("9.99")), str)
    assert_type(await charge.enqueue(1, amount=Decimal(2)), str)
    assert_type(charge.enqueue_sync(1), str)
    assert_type(charge.task(1), Task)
    assert_type(await charge.original(1), str)
    assert_type(ship(3, express=True), bool)
    assert_type(ship.original(3, express=True), bool)
    assert_type(await ship.enqueue(3, express=True), str)
    assert_type(bare(1), bytes)
    assert_type(await bare_async(1), bytes)
    assert_type(empty(1), bytes)

    await charge("one")  # type: ignore[arg-type]
    await charge()  # type: ignore[call-arg]
    await charge.enqueue(1, 2)  # type: ignore[arg-type]
    charge.task(currency="EUR")  # type: ignore[call-arg]
    ship(3, True)  # type: ignore[call-arg]
    bare("one")  # type: ignore[arg-type]


# Only ``on_failure="suppress"`` brings a Captured into the answer.


@dead_lettered(dlq, on_failure="suppress")
async def maybe(order: int) -> str:
    return str(order)


@dead_lettered(dlq, on_failure="suppress", when=lambda error: isinstance(error, OSError))
def maybe_sync(order: int) -> str:
    return str(order)


@dead_lettered(dlq, on_failure="raise")
def surely(order: int) -> str:
    return str(order)


async def suppressed() -> None:
    assert_type(await maybe(1), str | Captured)
    assert_type(maybe_sync(1), str | Captured)
    assert_type(surely(1), str)
    assert_type(await maybe.original(1), str)
    assert_type(maybe_sync.original(1), str)
    answer = maybe_sync(1)
    if isinstance(answer, Captured):
        assert_type(answer.task_id, str)
        assert_type(answer.error, BaseException)
    else:
        assert_type(answer, str)


dead_lettered(dlq, on_failure="ignore")  # type: ignore[call-overload]
dead_lettered(dlq, priority="urgent")  # type: ignore[call-overload]


# Methods bind as before; through the class, ``self`` is an argument like any other.


class Account:
    @dead_lettered(dlq, name="account.pay")
    async def pay(self, amount: int) -> str:
        return str(amount)

    @staticmethod
    @dead_lettered(dlq, name="account.fee")
    def fee(amount: int) -> int:
        return amount


async def methods(account: Account) -> None:
    assert_type(await account.pay(5), str)
    assert_type(await Account.pay(account, 5), str)
    assert_type(await Account.pay.enqueue(account, 5), str)
    assert_type(Account.fee(5), int)
    await account.pay("five")  # type: ignore[arg-type]


# A decorated function is a callable like any other.


def takes_function(function: Callable[[int], bytes]) -> None: ...


def takes_coroutine_function(function: Callable[[int, Decimal], Coroutine[Any, Any, str]]) -> None: ...


takes_function(bare)
takes_coroutine_function(charge)


# The blocking calls have the parameters and answers of the awaited ones.


def blocking() -> None:
    assert_type(dlq.sync.enqueue(Task(type="x"), on_dead="replay"), str)
    assert_type(dlq.sync.enqueue_many([Task(type="x", priority=Priority.HIGH)]), list[str])
    assert_type(dlq.sync.get("id"), TaskRecord)
    assert_type(dlq.sync.list(Query(type="x"), limit=5).items, Sequence[TaskRecord])
    assert_type(dlq.sync.scan(), Iterator[TaskRecord])
    assert_type(dlq.sync.cancel("id"), bool)
    assert_type(dlq.sync.purge(Query(type="x"), cutoff=datetime.now(UTC)), BulkResult)
    with dlq.sync.subscribe("dead") as events:
        assert_type(events, Iterator[Event])
    dlq.sync.enqueue("x")  # type: ignore[arg-type]
    dlq.sync.enqueue(Task(type="x"), on_dead="drop")  # type: ignore[arg-type]
