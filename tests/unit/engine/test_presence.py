from __future__ import annotations

import pytest

from deadletter import BackendUnavailable
from deadletter.engine.presence import BEAT, LEASE_MS, Presence, reserved
from deadletter.engine.sweeper import tidy
from deadletter.model.row import Scan

pytestmark = pytest.mark.anyio


async def names(dlq):
    return [worker.name for worker in (await dlq.stats()).workers]


async def rows(dlq):
    return (await dlq.backend.scan(reserved("workers", dlq.name), Scan(state="running"))).rows


async def test_a_worker_is_seen_while_it_works(dlq, working, until, clock):
    for type_ in ("b", "a"):
        dlq.processor(type_)(print)
    async with working(dlq, name="me"):
        await until(lambda: names(dlq))
        (seen,) = (await dlq.stats()).workers
        assert (seen.name, seen.types) == ("me", ["a", "b"])
        assert seen.last_seen.timestamp() * 1000 == clock.now_ms()
    assert await names(dlq) == []
    assert await rows(dlq) == [], "it leaves nothing behind"


async def test_it_gives_signs_of_life_and_new_types(dlq, working, until, clock, pass_until):
    dlq.processor("a")(print)
    async with working(dlq, name="me"):
        await until(lambda: names(dlq))
        before = (await dlq.stats()).workers[0].last_seen

        async def beaten():
            workers = (await dlq.stats()).workers
            return workers and workers[0].last_seen > before

        await pass_until(beaten, step=1)
        assert clock.monotonic() >= BEAT
        dlq.processor("b")(print)

        async def knows_both():
            workers = (await dlq.stats()).workers
            return workers and workers[0].types == ["a", "b"]

        await pass_until(knows_both, step=1)
        assert len(await rows(dlq)) == 1


async def test_one_that_vanished_is_not_seen_and_is_tidied_away(dlq, clock):
    await dlq.open()
    presence = Presence(dlq, dlq.worker(name="gone"))
    await presence._appear(["a"])
    clock.advance(LEASE_MS / 1000 - 1)
    assert await names(dlq) == ["gone"]
    clock.advance(1)
    assert await names(dlq) == []
    await tidy(dlq)
    await tidy(dlq)
    assert await rows(dlq) == []
    assert await presence._beat("b2") is False, "so that it appears anew, should it only have slept"


async def test_many_workers_are_all_seen(dlq):
    await dlq.open()
    for n in range(105):
        await Presence(dlq, dlq.worker(name=f"w{n:03}"))._appear([])
    assert await names(dlq) == [f"w{n:03}" for n in range(105)]


async def test_a_store_that_is_away_does_not_end_it(dlq, backend, working, until, pass_until, monkeypatch):
    dlq.processor("a")(print)
    insert, failed = backend.insert, []

    async def once(queue, news):
        if not failed:
            failed.append(queue)
            raise BackendUnavailable("away")
        return await insert(queue, news)

    monkeypatch.setattr(backend, "insert", once)
    async with working(dlq, name="me"):
        await until(lambda: failed)
        await pass_until(lambda: names(dlq), step=BEAT)


async def test_leaving_a_store_that_is_away_is_quiet(dlq, backend, working, until, monkeypatch):
    async def unavailable(queue, batch):
        raise BackendUnavailable("away")

    async with working(dlq, name="me"):
        await until(lambda: names(dlq))
        monkeypatch.setattr(backend, "apply", unavailable)
