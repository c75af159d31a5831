"""What guards a change: its fence, and its name that makes a repeat harmless."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import pytest

from ..model.record import Reason
from ..model.row import Change, Row
from ..rules import changes
from .material import DONE, KEEP_MS, LEASE_MS, MISSING, REPEATED, STALE, Promises, Store, failure, letter, new, op


@attrs.frozen
class Step:
    """A constructor of changes: how a row comes to it, and how it is made from that row."""

    name: str
    arrange: Callable[[Store], Awaitable[Row]]
    make: Callable[[Row, str], Change]


async def _running(store: Store) -> Row:
    return await store.running("a", key="k")


async def _held(store: Store) -> Row:
    await store.put(new("a", key="k"))
    [row] = (await store.claim(start=0)).rows
    return row


async def _lapsed(store: Store) -> Row:
    row = await _running(store)
    store.pass_ms(LEASE_MS)
    return row


async def _expired(store: Store) -> Row:
    await store.put(new("a", expires_ms=10))
    store.pass_ms(10)
    return await store.row()


async def _dead(store: Store) -> Row:
    await store.put(letter("a", key="k"))
    return await store.row()


async def _pending(store: Store) -> Row:
    await store.put(new("a", key="k"))
    return await store.row()


LATE = (
    Step("succeed", _running, lambda row, op: changes.succeed(row, op, KEEP_MS)),
    Step("try_again", _running, lambda row, op: changes.try_again(row, op, failure(), 9)),
    Step("die", _running, lambda row, op: changes.die(row, op, Reason.REJECTED, failure(), KEEP_MS)),
    Step("yield_thread", _running, lambda row, op: changes.yield_thread(row, op, 9)),
    Step("postpone", _running, lambda row, op: changes.postpone(row, op, 9)),
    Step("release", _running, changes.release),
    Step("discard", _running, lambda row, op: changes.discard(row, op, KEEP_MS, "why")),
    Step("quarantine", _running, lambda row, op: changes.quarantine(row, op, "unreadable", KEEP_MS)),
)
HELD = (
    Step("start", _held, changes.start),
    Step("extend", _running, lambda row, op: changes.extend(row, op, LEASE_MS)),
    Step("outlive", _running, lambda row, op: changes.outlive(row, op, failure())),
    Step("erase running", _running, lambda row, op: changes.erase(row, op, KEEP_MS)),
    Step("complete", _running, lambda row, op: changes.complete(row.id, row.token or "", op, b"result", KEEP_MS)),
    Step(
        "abandon", _running, lambda row, op: attrs.evolve(changes.abandon(row.id, row.token or "", op), keep_ms=KEEP_MS)
    ),
)
LAPSED = (
    Step("lapse", _lapsed, lambda row, op: changes.lapse(row, op, on_uncertain="retry", max_lease_losses=3)),
    Step("lapse dead", _lapsed, lambda row, op: changes.lapse(row, op, on_uncertain="dead", max_lease_losses=3)),
    Step("take_over", _lapsed, lambda row, op: changes.take_over(row, op, "heir", LEASE_MS, "w2")),
)
ENDED = (
    Step("replay", _dead, lambda row, op: changes.replay(row, op, note=failure(0))),
    Step("purge", _dead, lambda row, op: changes.purge(row, op, KEEP_MS)),
    Step("erase dead", _dead, lambda row, op: changes.erase(row, op, KEEP_MS)),
)
WAITING = (
    Step("expire", _expired, changes.expire),
    Step("cancel", _pending, lambda row, op: changes.cancel(row, op, KEEP_MS)),
)
EVERY = (*LATE, *HELD, *LAPSED, *ENDED, *WAITING)


def each(*steps: Step) -> pytest.MarkDecorator:
    """One test per step, named after it."""
    return pytest.mark.parametrize("step", steps, ids=[step.name for step in steps])


async def seen(store: Store, id_: str = "a") -> tuple[Any, ...]:
    """All that a change may change."""
    [row] = await store.backend.load(store.queue, [id_], history=20)
    counted = await store.counts()
    return row, dict(counted.tally), dict(counted.lifetime)


class FencePromises(Promises):
    """Promises about who may change a row."""

    @each(*EVERY)
    async def test_a_change_is_done_once(self, store: Store, step: Step) -> None:
        """A change whose fence holds is done; sent again it answers `repeated` and changes nothing."""
        change = step.make(await step.arrange(store), op())
        assert await store.apply(change) == [DONE]
        after = await seen(store)
        assert await store.apply(change) == [REPEATED]
        assert await store.apply(change, change) == [REPEATED, REPEATED]
        assert await seen(store) == after

    @each(*EVERY)
    async def test_a_change_twice_in_one_call_is_done_once(self, store: Store, step: Step) -> None:
        """A change that a retrying client doubled within one call counts once."""
        row = await step.arrange(store)
        change = step.make(row, op())
        before = (await store.counts()).lifetime
        assert await store.apply(change, change) == [DONE, REPEATED]
        after = (await store.counts()).lifetime
        for name in change.count:
            assert after.get(name, 0) - before.get(name, 0) == 1
        assert (await store.row()).attempts == (0 if change.reset else row.attempts + change.attempts)

    @each(*EVERY)
    async def test_a_change_of_nobody_creates_nothing(self, store: Store, step: Step) -> None:
        """No change ever creates a row: of an id that is not there, or only a tombstone, it answers `missing`."""
        change = step.make(await step.arrange(store), op())
        await store.gone("tomb")
        before = await seen(store)
        verdicts = await store.apply(attrs.evolve(change, id="nobody"), attrs.evolve(change, id="tomb"))
        assert verdicts == [MISSING, MISSING]
        assert await store.backend.load(store.queue, ["nobody"]) == [None]
        assert await seen(store) == before

    @each(*LATE, *HELD, *LAPSED)
    async def test_a_strangers_token_changes_nothing(self, store: Store, step: Step) -> None:
        """Only the holder of the lease may change a running row: with another token a change is stale."""
        change = step.make(await step.arrange(store), op())
        before = await seen(store)
        assert await store.apply(attrs.evolve(change, token="stranger")) == [STALE]
        assert await seen(store) == before

    @each(*ENDED, Step("cancel", _pending, lambda row, op: changes.cancel(row, op, KEEP_MS)))
    async def test_another_generation_changes_nothing(self, store: Store, step: Step) -> None:
        """What was meant for a letter before its replay does not touch it afterwards."""
        change = step.make(await step.arrange(store), op())
        before = await seen(store)
        assert await store.apply(attrs.evolve(change, generation=7)) == [STALE]
        assert await seen(store) == before

    @each(*EVERY)
    async def test_another_state_changes_nothing(self, store: Store, step: Step) -> None:
        """A change fits one state only: a row in any other is left as it is, and the change is stale."""
        change = step.make(await step.arrange(store), op())
        await store.put(new("pending"), letter("dead"))
        await store.running("running")
        await store.must(changes.succeed(await store.running("succeeded"), op(), KEEP_MS))
        for state in {"pending", "dead", "running", "succeeded"} - {change.was}:
            before = await seen(store, state)
            misplaced = attrs.evolve(change, id=state, token=None, generation=None, lapsed=False)
            assert await store.apply(misplaced) == [STALE], state
            assert await seen(store, state) == before

    @each(*LAPSED, Step("expire", _expired, changes.expire))
    async def test_what_has_not_lapsed_is_left(self, store: Store, step: Step) -> None:
        """A sweep decides on what it saw; where the lease or the expiry lies ahead by now, its change is stale."""
        change = step.make(await step.arrange(store), op())
        await store.put(new("ahead", expires_ms=5))
        held = await store.running("held", lease_ms=5)
        store.pass_ms(4)
        early = attrs.evolve(change, id="held" if change.was == "running" else "ahead")
        early = attrs.evolve(early, token=held.token if change.was == "running" else None)
        assert await store.apply(early) == [STALE]
        store.pass_ms(1)
        assert await store.apply(attrs.evolve(early, op=op())) == [DONE]

    async def test_what_never_lapses_is_left(self, store: Store) -> None:
        """A row without an expiry never expires."""
        await store.put(new("a"))
        assert await store.apply(changes.expire(await store.row(), op())) == [STALE]

    @each(*LATE)
    async def test_a_late_settle_is_accepted_while_nobody_has_claimed(self, store: Store, step: Step) -> None:
        """A finished attempt counts even after its lease lapsed and was swept, as long as the row is nobody else's."""
        row = await step.arrange(store)
        store.pass_ms(LEASE_MS)
        await store.must(changes.lapse(row, op(), on_uncertain="retry", max_lease_losses=9))
        assert await store.apply(attrs.evolve(step.make(row, op()), token="stranger")) == [STALE]
        assert await store.apply(step.make(row, op())) == [DONE]

    @each(*LATE)
    async def test_a_late_settle_loses_to_a_new_claim(self, store: Store, step: Step) -> None:
        """Once somebody has claimed the row anew, the old attempt's settle is stale, now and for ever."""
        row = await step.arrange(store)
        store.pass_ms(LEASE_MS)
        await store.must(changes.lapse(row, op(), on_uncertain="retry", max_lease_losses=9))
        [heir] = (await store.claim()).rows
        before = await seen(store)
        assert await store.apply(step.make(row, op())) == [STALE]
        assert await seen(store) == before
        await store.must(changes.release(heir, op()))
        assert await store.apply(step.make(row, op())) == [STALE]
        await store.must(changes.release((await store.claim()).rows[0], op()))
        assert await store.apply(step.make(row, op())) == [STALE]

    @each(*HELD)
    async def test_what_is_no_settle_is_never_late(self, store: Store, step: Step) -> None:
        """A lease that was swept cannot be extended, started, completed or abandoned any more."""
        row = await step.arrange(store)
        store.pass_ms(LEASE_MS)
        await store.must(changes.lapse(row, op(), on_uncertain="retry", max_lease_losses=9))
        before = await seen(store)
        assert await store.apply(step.make(row, op())) == [STALE]
        assert await seen(store) == before

    async def test_a_settle_after_its_lease_is_accepted_before_the_sweep(self, store: Store) -> None:
        """A lease that ran out unnoticed is still its holder's."""
        row = await store.running(lease_ms=5)
        store.pass_ms(50)
        assert await store.apply(changes.succeed(row, op(), KEEP_MS)) == [DONE]

    async def test_changes_of_one_call_apply_in_their_order(self, store: Store) -> None:
        """Several changes of one row in one call meet each other's effects; one that fails stops no other."""
        a, b = await store.running("a"), await store.running("b")
        verdicts = await store.apply(
            changes.extend(a, op(), 99_000),
            changes.succeed(attrs.evolve(b, token="stranger"), op(), KEEP_MS),
            changes.release(a, op()),
            changes.succeed(a, op(), KEEP_MS),
            changes.release(attrs.evolve(a, id="nobody"), op()),
            changes.cancel(attrs.evolve(a, state="pending"), op(), KEEP_MS),
            changes.succeed(b, op(), KEEP_MS),
        )
        assert verdicts == [DONE, STALE, DONE, STALE, MISSING, DONE, DONE]
        assert (await store.state("a"), await store.state("b")) == (None, "succeeded")

    async def test_a_hundred_changes_fit_one_call(self, store: Store) -> None:
        """A step takes up to 100 items."""
        await store.put(*(new(f"{n:03}") for n in range(100)))
        rows = (await store.claim()).rows
        await store.must(*(changes.succeed(row, op(), KEEP_MS) for row in rows))
        assert (await store.counts()).tally["succeeded", 1, "t", ""] == 100
