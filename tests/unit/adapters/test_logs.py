"""Errors in a log that become letters."""

from __future__ import annotations

import logging

import anyio
import pytest

from deadletter import BackendUnavailable, DeadLetterQueue, Task
from deadletter.adapters.logs import LetterHandler
from deadletter.backends.memory import MemoryBackend

pytestmark = pytest.mark.anyio


@pytest.fixture
def dlq() -> DeadLetterQueue:
    return DeadLetterQueue("memory://")


@pytest.fixture
def logger(dlq):
    logger = logging.getLogger("shop.mail")
    handler = LetterHandler(dlq)
    logger.addHandler(handler)
    yield logger
    logger.removeHandler(handler)


async def letters(dlq: DeadLetterQueue, logger: logging.Logger):
    for handler in logger.handlers:
        await anyio.to_thread.run_sync(handler.flush)
    return [record async for record in dlq.scan()]


def fail() -> None:
    raise ConnectionError("no answer")


async def test_a_logged_exception_is_kept_as_a_letter(dlq, logger):
    try:
        fail()
    except ConnectionError:
        logger.exception("could not send to %s", "ann", extra={"letter": {"to": "ann"}})
    [letter] = await letters(dlq, logger)
    assert (letter.task.type, letter.reason) == ("log.shop.mail", "captured")
    assert letter.task.payload["message"] == "could not send to ann"
    assert (letter.task.payload["level"], letter.task.payload["to"]) == ("ERROR", "ann")
    assert letter.failure.error_type == "ConnectionError"
    assert "in fail" in letter.failure.traceback


async def test_what_is_no_error_or_has_no_exception_is_left_out(dlq, logger):
    logger.error("just words")
    try:
        fail()
    except ConnectionError:
        logger.warning("known", exc_info=True)
        logging.getLogger("shop.mail.quiet").debug("quiet", exc_info=True)
    assert await letters(dlq, logger) == []


async def test_an_exception_is_kept_once(dlq, logger):
    from deadletter import dead_lettered

    @dead_lettered(dlq, name="send", retry=[])
    async def send() -> None:
        fail()

    try:
        await send()
    except ConnectionError:
        logger.exception("failed")
    assert [letter.task.type for letter in await letters(dlq, logger)] == ["send"], "its own, and no other"


async def test_inside_an_attempt_its_task_has_the_failure(dlq, logger):
    def processor(_: Task) -> None:
        try:
            fail()
        except ConnectionError:
            logger.exception("failed")

    await dlq.process_task(await dlq.enqueue(Task(type="t")), processor)
    assert await letters(dlq, logger) == []


async def test_it_never_listens_to_itself(dlq):
    handler = LetterHandler(dlq)
    root = logging.getLogger("deadletter")
    root.addHandler(handler)
    try:
        fail()
    except ConnectionError:
        logging.getLogger("deadletter.worker").exception("a store that is away")
    finally:
        root.removeHandler(handler)
    handler.flush()
    assert [record async for record in dlq.scan()] == []


@pytest.mark.parametrize("broken", ["store", "letter"])
async def test_what_cannot_be_kept_is_told_as_logging_tells(monkeypatch, broken):
    class Away(MemoryBackend):
        async def insert(self, queue, rows):
            raise BackendUnavailable("away")

    told = []
    monkeypatch.setattr(LetterHandler, "handleError", lambda _, record: told.append(record.getMessage()))
    handler = LetterHandler(DeadLetterQueue(Away()))
    logger = logging.getLogger("shop.away")
    logger.addHandler(handler)
    try:
        fail()
    except ConnectionError:
        logger.exception("lost", extra={"letter": "no mapping"} if broken == "letter" else None)
    await anyio.to_thread.run_sync(handler.flush)
    logger.removeHandler(handler)
    with anyio.fail_after(5):
        while not told:
            await anyio.sleep(0.001)
    assert told == ["lost"]


def test_a_type_that_cannot_be_is_refused_at_once(dlq):
    with pytest.raises(ValueError, match="type"):
        LetterHandler(dlq, type="\n")
