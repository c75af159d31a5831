from __future__ import annotations

import functools

import pytest

from deadletter import DeadLetterQueue, InvalidTask
from deadletter.engine.registry import Registry, is_async


async def coroutine(task):
    return task


def plain(task):
    return task


class Callable:
    async def __call__(self, task):
        return task


class PlainCallable:
    def __call__(self, task):
        return task


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        (coroutine, True),
        (functools.partial(coroutine), True),
        (functools.partial(functools.partial(coroutine)), True),
        (Callable(), True),
        (Callable().__call__, True),
        (plain, False),
        (functools.partial(plain), False),
        (PlainCallable(), False),
        (print, False),
        (dict, False),
    ],
    ids=lambda value: repr(value).partition(" at 0x")[0],
)
def test_is_async_looks_through(processor, expected):
    assert is_async(processor) is expected


@pytest.fixture
def dlq() -> DeadLetterQueue:
    return DeadLetterQueue("memory://")


def test_a_processor_stays_the_function_that_it_was(dlq):
    assert dlq.processor("t")(plain) is plain
    assert dlq.registry.get("t").processor is plain
    assert dlq.registry.get("u") is None


def test_the_same_processor_may_register_again(dlq):
    dlq.processor("t")(plain)
    dlq.processor("t", timeout=3)(plain)
    assert dlq.registry.get("t").timeout == 3


def test_a_second_processor_for_a_type_is_refused(dlq):
    dlq.processor("t")(plain)
    with pytest.raises(InvalidTask, match="'t' has a processor already"):
        dlq.processor("t")(coroutine)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"type": "a\nb"}, "type"),
        ({"max_retries": -1}, "max_retries"),
        ({"timeout": 0}, "timeout"),
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": "3"}, "concurrency"),
    ],
    ids=lambda value: str(value).partition(" at 0x")[0],
)
def test_bad_options_are_named(dlq, options, field):
    with pytest.raises(InvalidTask, match=field):
        dlq.processor(**{"type": "t", **options})


def test_a_bad_policy_is_refused(dlq):
    with pytest.raises(TypeError):
        dlq.processor("t", retry=3)


def test_types_are_narrowed_by_globs():
    registry = Registry()
    dlq = DeadLetterQueue("memory://")
    dlq.registry = registry
    for name in ("email.send", "email.digest", "sms"):
        dlq.processor(name)(plain)
    assert registry.types() == ["email.send", "email.digest", "sms"]
    assert registry.types(["email.*"]) == ["email.send", "email.digest"]
    assert registry.types(["sms", "*.send"]) == ["email.send", "sms"]
    assert registry.types([]) == []
