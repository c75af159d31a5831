"""An outage parks work: the types that need the service wait, one task probes, and a ramp lets the rest in."""

from __future__ import annotations

import math
from contextlib import AsyncExitStack

import pytest

from deadletter import BackendUnavailable, DeadLetterQueue, InvalidTask, PermanentError, Postpone, State, Task
from deadletter.adapters.breakers import Breaker
from deadletter.engine import parking
from deadletter.engine.guard import RowIdempotencyStore
from deadletter.engine.parking import MARK
from deadletter.engine.pauses import lift_one
from deadletter.metrics import exposition

pytestmark = pytest.mark.anyio


class Service:
    """What the tasks need, and when it was asked."""

    def __init__(self, clock) -> None:
        self.clock, self.down, self.calls = clock, True, []

    def ask(self, task: Task) -> None:
        self.calls.append((self.clock.monotonic(), task.id))
        if self.down:
            raise ConnectionError("down")


@pytest.fixture(params=["asyncio", pytest.param("trio", marks=pytest.mark.full)], scope="module")
def anyio_backend(request) -> str:
    return request.param


@pytest.fixture(params=["memory", pytest.param("sqlite", marks=pytest.mark.full)])
def url(request, tmp_path) -> str:
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'queue.db'}"


@pytest.fixture
def service(clock) -> Service:
    return Service(clock)


def serve(dlq: DeadLetterQueue, service: Service, *types: str) -> None:
    for type_ in types:

        @dlq.processor(type_)
        async def run(task: Task) -> None:
            service.ask(task)


def breaker(**options) -> Breaker:
    return Breaker(**{"failure_threshold": 3, "recovery_timeout": 30, **options})


async def parked(dlq: DeadLetterQueue) -> bool:
    return any(pause.why.startswith(MARK) for pause in await dlq.paused())


async def test_an_outage_costs_attempts_only_of_what_was_under_way(make_queue, clock, service, working, pass_until):
    dlq = make_queue(retry=[1], max_retries=2)
    serve(dlq, service, "email.send")
    ids = await dlq.enqueue_many([Task(type="email.send") for _ in range(20)])
    async with working(dlq, breakers={"email.*": breaker()}, concurrency=4) as worker:
        await pass_until(lambda: parked(dlq))
        began = clock.monotonic()
        await pass_until(lambda: clock.monotonic() > began + 200, step=1)
        during = len(service.calls)
        service.down = False
        await pass_until(lambda: worker.running == 0 and len(service.calls) > during, step=1)

        async def done() -> bool:
            return (await dlq.stats()).by_state["succeeded"] == 20

        await pass_until(done, step=0.2)
    assert during <= 4 + 3 + 200 / 30 + 1, "in flight, what opened it, and probes"
    records = [await dlq.get(id_) for id_ in ids]
    assert {record.state for record in records} == {State.SUCCEEDED}, "no death, though each had three attempts"
    assert not await parked(dlq)


async def test_a_failed_probe_consumes_no_attempt(make_queue, clock, service, working, pass_until):
    dlq = make_queue(retry=[1], max_retries=10)
    serve(dlq, service, "t")
    task_id = await dlq.enqueue(Task(type="t"))
    async with working(dlq, breakers={"t": breaker(failure_threshold=1)}):
        await pass_until(lambda: len(service.calls) >= 4, step=1)
    record = await dlq.get(task_id)
    assert (record.attempts, record.state) == (1, State.PENDING)
    assert record.postpones >= 2
    waits = [after - before for (before, _), (after, _) in zip(service.calls, service.calls[1:], strict=False)]
    assert all(wait >= 30 for wait in waits), "and probes wait for the recovery"


async def test_arrivals_after_an_outage_stay_below_the_ramp(make_queue, clock, service, working, pass_until):
    dlq = make_queue(retry=[1])
    serve(dlq, service, "a", "b")
    await dlq.enqueue_many([Task(type=type_) for type_ in "ab" for _ in range(60)])
    gate = breaker(ramp_start=2, ramp_factor=2)
    async with working(dlq, breakers={"*": gate}) as worker:
        await pass_until(lambda: parked(dlq))
        began = clock.monotonic()
        await pass_until(
            lambda: clock.monotonic() > began + 5 and not worker.running
        )  # a claim may have been under way
        service.down = False
        before = len(service.calls)

        async def done() -> bool:
            return (await dlq.stats()).by_state["succeeded"] == 120

        await pass_until(done, step=0.1)
    probe, *after = [at for at, _ in service.calls[before:]]
    assert after[0] > probe
    for second in range(6):
        allowed = 2 * (2 ** (second + 1) - 1) / math.log(2)  # the integral of the rate
        assert sum(at <= probe + second + 1 for at in after) <= allowed + 1


async def test_no_second_probe_starts_while_the_first_closes_the_circuit(
    make_queue, clock, service, working, pass_until, monkeypatch
):
    """The store may take its time to lift the pause; until then one probe is all that was allowed."""
    dlq = make_queue(retry=[1])
    serve(dlq, service, "t")
    await dlq.enqueue_many([Task(type="t") for _ in range(5)])
    rooms = []
    async with working(dlq, breakers={"t": breaker()}) as worker:
        await pass_until(lambda: parked(dlq))

        async def lift_slowly(*args):
            rooms.append(worker.parking.rooms([], ["t"], ["t"]))
            return await lift_one(*args)

        monkeypatch.setattr(parking, "lift_one", lift_slowly)
        service.down = False
        await pass_until(lambda: rooms, step=1)
    assert rooms == [{}]


async def test_two_workers_share_one_circuit(make_queue, clock, service, working, pass_until):
    one, other = make_queue(retry=[1], max_retries=50), make_queue(retry=[1], max_retries=50)
    for dlq in (one, other):
        serve(dlq, service, "t")
    await one.enqueue_many([Task(type="t") for _ in range(10)])
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(working(one, breakers={"t": breaker()}, concurrency=3))
        await pass_until(lambda: parked(one))
        await stack.enter_async_context(working(other, breakers={"t": breaker()}, concurrency=3))
        began, before = clock.monotonic(), len(service.calls)
        await pass_until(lambda: clock.monotonic() > began + 100, step=1)
        assert len(service.calls) - before <= 4, "they take turns in probing"
        service.down = False

        async def done() -> bool:
            return (await one.stats()).by_state["succeeded"] == 10

        await pass_until(done, step=0.2)


async def test_who_finds_a_circuit_open_takes_part_and_may_close_it(make_queue, clock, service, working, pass_until):
    dlq = make_queue()
    serve(dlq, service, "t")
    await dlq.pause("t", why=f"{MARK}5 failures in a row")
    await dlq.enqueue(Task(type="t"))
    service.down = False
    async with working(dlq, breakers={"t": breaker()}):
        await pass_until(lambda: service.calls, step=0.5)

        async def closed() -> bool:
            return not await dlq.paused()

        await pass_until(closed, step=0.2)
    assert clock.monotonic() >= 30, "after the recovery"


async def test_a_worker_that_vanished_while_it_probed_holds_up_nobody(make_queue, clock, service, working, pass_until):
    dlq = make_queue()
    serve(dlq, service, "t")
    await dlq.pause("t", why=f"{MARK}5 failures in a row")
    await dlq.enqueue(Task(type="t"))
    service.down = False
    vanished = await RowIdempotencyStore(dlq).begin("probe:t", "probe", 40)
    assert vanished.word == "started"
    async with working(dlq, breakers={"t": breaker()}):
        await pass_until(lambda: service.calls, step=0.5)
    assert 40 <= clock.monotonic() < 75


async def test_a_store_that_cannot_be_told_is_told_later_and_nothing_runs_meanwhile(
    make_queue, clock, service, working, pass_until, monkeypatch
):
    dlq = make_queue(retry=[1], max_retries=50)
    serve(dlq, service, "t")
    pause, refused = dlq.pause, []

    async def away(types="*", *, why):
        if clock.monotonic() < 20:
            refused.append(why)
            raise BackendUnavailable("away")
        return await pause(types, why=why)

    monkeypatch.setattr(dlq, "pause", away)
    await dlq.enqueue_many([Task(type="t") for _ in range(6)])
    async with working(dlq, breakers={"t": breaker()}, concurrency=1):
        await pass_until(lambda: refused)
        await pass_until(lambda: clock.monotonic() > 25)
        assert len(service.calls) == 3
        await pass_until(lambda: parked(dlq), step=0.5)
        service.down = False

        async def done() -> bool:
            return (await dlq.stats()).by_state["succeeded"] == 6

        await pass_until(done, step=0.2)


async def test_a_probe_that_finds_nothing_to_do_leaves_its_turn_to_others(
    make_queue, clock, service, working, pass_until
):
    dlq = make_queue()
    serve(dlq, service, "t")
    await dlq.pause("t", why=f"{MARK}5 failures in a row")
    rights = RowIdempotencyStore(dlq)
    async with working(dlq, breakers={"t": breaker()}):

        async def held() -> bool:
            begun = await rights.begin("probe:t", "probe", 30)
            if begun.token is not None:
                await rights.abandon(begun.token)
            return begun.word == "in_progress"

        await pass_until(held, step=0.5)
        began = clock.monotonic()
        await pass_until(lambda: clock.monotonic() > began + 100, step=1)
        service.down = False
        await dlq.enqueue(Task(type="t"))
        await pass_until(lambda: service.calls, step=0.5)


async def test_a_ramp_ends(make_queue, clock, service, working, pass_until):
    dlq = make_queue(retry=[1])
    serve(dlq, service, "t")
    await dlq.pause("t", why=f"{MARK}5 failures in a row")
    service.down = False
    await dlq.enqueue(Task(type="t"))
    async with working(dlq, breakers={"t": breaker()}) as worker:
        await pass_until(lambda: service.calls, step=0.5)
        began = clock.monotonic()
        await pass_until(lambda: clock.monotonic() > began + 15, step=0.1)
        assert worker.parking.rooms(["t"], ["t"], []) == {"t": None}


async def test_a_probe_that_says_nothing_is_followed_by_another(make_queue, clock, service, working, pass_until):
    dlq = make_queue()
    seen = []

    @dlq.processor("t")
    async def run(task: Task) -> None:
        seen.append(task.id)
        if len(seen) == 1:
            raise Postpone(1, "not this one")

    await dlq.pause("t", why=f"{MARK}5 failures in a row")
    await dlq.enqueue_many([Task(type="t"), Task(type="t")])
    async with working(dlq, breakers={"t": breaker()}):

        async def done() -> bool:
            return (await dlq.stats()).by_state["succeeded"] == 2

        await pass_until(done, step=0.5)


async def test_an_operator_may_close_it(make_queue, clock, service, working, pass_until):
    dlq = make_queue(retry=[1], max_retries=50)
    serve(dlq, service, "t")
    await dlq.enqueue_many([Task(type="t") for _ in range(4)])
    async with working(dlq, breakers={"t": breaker(recovery_timeout=3600)}, concurrency=1):
        await pass_until(lambda: parked(dlq))
        service.down, before = False, len(service.calls)
        began = clock.monotonic()
        await pass_until(lambda: clock.monotonic() > began + 5)
        assert len(service.calls) == before
        await dlq.resume("t")

        async def done() -> bool:
            return (await dlq.stats()).by_state["succeeded"] == 4

        await pass_until(done, step=0.2)
    assert clock.monotonic() < 3600


async def test_what_an_operator_paused_stays_paused(make_queue, clock, service, working, pass_until):
    dlq = make_queue(retry=[1], max_retries=50)
    serve(dlq, service, "t")
    await dlq.enqueue_many([Task(type="t") for _ in range(4)])
    async with working(dlq, breakers={"t": breaker()}, concurrency=1):
        await pass_until(lambda: parked(dlq))
        await dlq.pause("*", why="noon")
        began, before = clock.monotonic(), len(service.calls)
        await pass_until(lambda: clock.monotonic() > began + 100, step=1)
    assert len(service.calls) == before, "no probe either"


async def test_a_pause_of_the_same_glob_by_an_operator_is_not_probed_nor_lifted(make_queue, clock, working, pass_until):
    dlq = make_queue(retry=[1], max_retries=50)
    calls = []

    @dlq.processor("t")
    async def run(task: Task) -> None:
        calls.append(task.id)
        await dlq.pause("t", why="noon")  # before enough have failed
        raise ConnectionError("down")

    await dlq.enqueue_many([Task(type="t") for _ in range(4)])
    async with working(dlq, breakers={"t": breaker()}, concurrency=4) as worker:
        await pass_until(lambda: len(calls) == 4 and not worker.running)
        began = clock.monotonic()
        await pass_until(lambda: clock.monotonic() > began + 70, step=1)
    assert len(calls) == 4
    assert [pause.why for pause in await dlq.paused()] == ["noon"]


async def test_closing_a_circuit_lifts_no_pause_that_its_glob_covers(make_queue, clock, service, working, pass_until):
    dlq = make_queue()
    serve(dlq, service, "email.send", "email.bulk")
    await dlq.pause("email.*", why=f"{MARK}5 failures in a row")
    await dlq.pause("email.bulk", why="noon")
    await dlq.enqueue_many([Task(type="email.send"), Task(type="email.bulk")])
    service.down = False
    async with working(dlq, breakers={"email.*": breaker()}):

        async def closed() -> bool:
            return not await parked(dlq)

        await pass_until(closed, step=0.5)
    assert [pause.types for pause in await dlq.paused()] == ["email.bulk"]
    assert len(service.calls) == 1


async def test_a_task_that_is_bad_by_itself_opens_nothing(make_queue, working, pass_until):
    dlq = make_queue()

    @dlq.processor("t")
    async def refuse(task: Task) -> None:
        raise PermanentError("no such account")

    await dlq.enqueue_many([Task(type="t") for _ in range(9)])
    async with working(dlq, breakers={"t": breaker()}):

        async def dead() -> bool:
            return (await dlq.stats()).by_state["dead"] == 9

        await pass_until(dead)
    assert not await dlq.paused()


async def test_other_types_go_on(make_queue, clock, service, working, pass_until):
    dlq = make_queue(retry=[1])
    serve(dlq, service, "email")
    done = []

    @dlq.processor("other")
    async def other(task: Task) -> None:
        done.append(task.id)

    await dlq.enqueue_many([Task(type="email") for _ in range(5)])
    async with working(dlq, breakers={"email": breaker()}):
        await pass_until(lambda: parked(dlq))
        await dlq.enqueue(Task(type="other"))
        await pass_until(lambda: done)


async def test_a_breaker_on_the_processor_parks_its_type_too(make_queue, clock, service, working, pass_until):
    dlq = make_queue(retry=[1], max_retries=50)
    shared = breaker(failure_threshold=2)

    @dlq.processor("t")
    @shared
    async def run(task: Task) -> None:
        service.ask(task)

    ids = await dlq.enqueue_many([Task(type="t") for _ in range(9)])
    dlq.breakers["t"] = breaker(failure_threshold=1000)  # which a refusal opens all the same
    async with working(dlq, concurrency=1):
        await pass_until(lambda: parked(dlq))
    assert len(service.calls) == 2
    assert sum([(await dlq.get(id_)).attempts for id_ in ids]) == 2


async def test_it_is_seen(make_queue, service, working, pass_until):
    dlq = make_queue(retry=[1], max_retries=50)
    serve(dlq, service, "t")
    await dlq.enqueue_many([Task(type="t") for _ in range(4)])
    async with working(dlq, breakers={"t": breaker()}):
        await pass_until(lambda: parked(dlq))
        [(glob, why)] = (await dlq.stats()).paused.items()
        page = (await exposition(dlq))[0].decode()
    assert (glob, why) == ("t", "circuit open: 3 failures in a row, the last a ConnectionError")
    assert 'dlq_circuits_open{queue="default"} 1.0' in page


@pytest.mark.parametrize("breakers", [{"": Breaker()}, {"a\n": Breaker()}, {"t": object()}, {3: Breaker()}])
async def test_breakers_that_cannot_be_meant_are_refused(dlq, breakers):
    with pytest.raises(InvalidTask, match="breakers"):
        dlq.worker(breakers=breakers)
