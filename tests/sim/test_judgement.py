"""The judge of histories: what happened one step at a time is accepted, and what nobody can explain is refused."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deadletter.backends.memory import MemoryBackend
from deadletter.model.record import Reason
from deadletter.model.row import (
    Change,
    Claim,
    Claimed,
    FailureRow,
    Inserted,
    Insertion,
    NewRow,
    Row,
    Scan,
    Slice,
    Verdict,
)
from deadletter.rules import changes
from deadletter.testing import VirtualClock

from .history import Call, History
from .judgement import unexplained

QUEUE = "q"
LEASE_MS, KEEP_MS, EXPIRES_MS = 1_000, 5_000, 3_000
IDS = ["a", "b", "c", "d"]
FAILURE = FailureRow(attempt=1, error_type="E", message="no")
LOOP: list[asyncio.Runner] = []


@pytest.fixture(autouse=True, scope="module")
def _loop() -> Iterator[None]:
    with asyncio.Runner() as runner:
        LOOP[:] = [runner]
        yield


def done(step: Awaitable[Any]) -> Any:
    """What a step of the store answers."""

    async def wait() -> Any:
        return await step

    return LOOP[0].run(wait())


class Story:
    """Some callers of one real store, one step at a time; each step takes a second, of which it needs a millisecond."""

    def __init__(self, chance: random.Random | None = None, keep_ms: int = KEEP_MS) -> None:
        self.chance = chance or random.Random(0)
        self.keep_ms = keep_ms
        self.clock = VirtualClock()
        self.store = MemoryBackend(clock=self.clock)
        self.history = History()
        self.ops = 0

    def op(self) -> str:
        self.ops += 1
        return f"op{self.ops}"

    def ask(self, name: str, *args: Any, who: str = "w", seconds: float = 0.01, **options: Any) -> Any:
        """One call, asked and answered at once."""
        self.clock.advance(seconds)
        call = self.history.ask(who, name, args, options, self.clock.now_ms())
        answer = done(getattr(self.store, name)(QUEUE, *args, **options))
        assert call is not None
        self.history.tell(call, answer, self.clock.now_ms() + 0.5)
        return answer

    def insert(self, id_: str = "a", **fields: Any) -> None:
        self.ask("insert", [NewRow(id=id_, type="t", body=b"{}", **fields)])

    def claim(self, who: str = "w", **fields: Any) -> Row:
        claim = Claim(**{"op": self.op(), "types": ["t"], "lease_ms": LEASE_MS, "owner": who, **fields})
        [row] = self.ask("claim", claim, who=who).rows
        return row  # type: ignore[no-any-return]

    def apply(self, change: Change, who: str = "w") -> Verdict:
        [verdict] = self.ask("apply", [change], who=who)
        return verdict  # type: ignore[no-any-return]

    def lapse(self, who: str = "w") -> None:
        [row] = self.ask("sweep", 10, who=who, seconds=2)
        assert self.apply(changes.lapse(row, self.op(), on_uncertain="retry", max_lease_losses=3), who) == "done"

    def judged(self) -> list[str]:
        self.clock.advance(0.01)
        rows = done(self.store.load(QUEUE, IDS, history=20))
        return unexplained(self.history, dict(zip(IDS, rows, strict=True)), self.clock.now_ms())

    @property
    def calls(self) -> list[Call]:
        return self.history.calls


def some_story(chance: random.Random, steps: int, keep_ms: int = KEEP_MS) -> Story:
    """Random steps of three callers, some of whom come late with what they hold."""
    story = Story(chance, keep_ms)
    held: list[tuple[str, Row]] = []
    for _ in range(steps):
        chance.choice((_enqueue, _claim, _claim, _settle, _settle, _sweep, _meddle, _look))(story, held)
    return story


def _who(story: Story) -> str:
    return story.chance.choice(("x", "y", "z"))


def _enqueue(story: Story, held: list[tuple[str, Row]]) -> None:
    chance = story.chance
    rows = [
        NewRow(
            id=id_,
            type=chance.choice("tu"),
            priority=chance.randrange(3),
            key=chance.choice((None, "k")) if id_ in "ab" else None,
            digest=chance.choice("xxxy"),
            body=b"{}",
            due_ms=chance.choice((0, 0, 500)),
            expires_ms=chance.choice((None, None, EXPIRES_MS)),
            keep_ms=chance.choice((None, story.keep_ms)),
        )
        for id_ in chance.sample(IDS, chance.choice((1, 1, 2)))
    ]
    story.ask("insert", rows, who=_who(story), seconds=chance.choice((0.01, 0.3)))


def _claim(story: Story, held: list[tuple[str, Row]]) -> None:
    chance, who = story.chance, _who(story)
    ids = chance.choice((None, None, chance.sample(IDS, 2)))
    claim = Claim(
        op=story.op(),
        limit=3,
        types=("t", "u"),
        ids=ids,
        lease_ms=LEASE_MS,
        owner=who,
        start=chance.randrange(4),
        keep_ms=chance.choice((None, story.keep_ms)),
    )
    claimed = story.ask("claim", claim, who=who, seconds=chance.choice((0.01, 0.5)))
    held += [(who, row) for row in claimed.rows]


def _settle(story: Story, held: list[tuple[str, Row]]) -> None:
    if not held:
        return
    chance = story.chance
    who, row = chance.choice(held)
    ways: list[Callable[[Row, str], Change]] = [
        lambda row, op: changes.succeed(row, op, story.keep_ms),
        lambda row, op: changes.try_again(row, op, attrs.evolve(FAILURE), 300),
        lambda row, op: changes.die(
            row, op, Reason.REJECTED, attrs.evolve(FAILURE), chance.choice((None, story.keep_ms))
        ),
        lambda row, op: changes.postpone(row, op, 300),
        lambda row, op: changes.discard(row, op, story.keep_ms, "why"),
        changes.release,
        changes.start,
        lambda row, op: changes.extend(row, op, LEASE_MS),
    ]
    change = chance.choice(ways)(row, story.op())
    for _ in range(chance.choice((1, 1, 2))):
        story.ask("apply", [change], who=who, seconds=chance.choice((0.01, 0.5)))


def _sweep(story: Story, held: list[tuple[str, Row]]) -> None:
    who = _who(story)
    rows = story.ask("sweep", 10, who=who, seconds=story.chance.choice((0.01, 1, 2)))
    batch = [
        changes.expire(row, story.op())
        if row.state != "running"
        else changes.lapse(row, story.op(), on_uncertain="retry", max_lease_losses=3)
        for row in rows
    ]
    if batch:
        story.ask("apply", batch, who=who)


def _meddle(story: Story, held: list[tuple[str, Row]]) -> None:
    who, seconds = _who(story), story.chance.choice((0.01, 0.5))
    page = story.ask("scan", Scan(state=story.chance.choice(("dead", "pending"))), who=who)
    if page.rows:
        row = story.chance.choice(page.rows)
        ways = (
            [changes.cancel] if row.state == "pending" else [changes.purge, lambda row, op, _: changes.replay(row, op)]
        )
        story.ask("apply", [story.chance.choice(ways)(row, story.op(), story.keep_ms)], who=who, seconds=seconds)


def _look(story: Story, held: list[tuple[str, Row]]) -> None:
    story.ask("load", story.chance.sample(IDS, 2), who=_who(story), history=story.chance.choice((0, 1, 20)))


def loosened(story: Story, lost: float) -> None:
    """The same steps, whose callers asked earlier and heard later, or never."""
    chance = story.chance
    for call in story.calls:
        call.asked -= chance.choice((0, 5, 400, 3000))
        call.answered += chance.choice((0, 5, 400, 3000))
        if chance.random() < lost:
            call.answered, call.answer = math.inf, None


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 50))
def test_what_happened_is_accepted(seed: int, steps: int) -> None:
    assert some_story(random.Random(seed), steps).judged() == []


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 30), st.sampled_from([0.0, 0.2]))
def test_what_happened_is_accepted_however_little_was_seen_of_it(seed: int, steps: int, lost: float) -> None:
    story = some_story(random.Random(seed), steps)
    loosened(story, lost)
    assert story.judged() == []


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(10, 50), st.data())
def test_one_reply_that_is_changed_is_refused(seed: int, steps: int, data: st.DataObject) -> None:
    story = some_story(random.Random(seed), steps, keep_ms=10**9)  # what may be forgotten may be missing, or not
    lies = [(call, lie) for call in story.calls for lie in _lies(call)]
    if lies:
        call, call.answer = data.draw(st.sampled_from(lies))
        assert story.judged() != []


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("first", range(0, 6_000, 500))
def test_thousands_of_histories_are_judged_rightly(first: int) -> None:
    for seed in range(first, first + 500):
        story = some_story(random.Random(seed), 50, keep_ms=10**9)
        assert story.judged() == [], seed
        lies = [(call, lie) for call in story.calls for lie in _lies(call)]
        for told, lie in story.chance.sample(lies, min(3, len(lies))):
            truth, told.answer = told.answer, lie
            assert story.judged() != [], (seed, told, lie)
            told.answer = truth


def _lies(call: Call) -> list[Any]:
    """Answers that cannot be true where that one is."""
    answer = call.answer
    if call.name == "apply":
        return [
            [*answer[:at], other, *answer[at + 1 :]]
            for at, verdict in enumerate(answer)
            for other in Verdict
            if other != verdict
        ]
    if call.name == "insert":
        return [[*answer[:-1], lie] for lie in _other_insertions(answer[-1])]
    if call.name in ("claim", "scan"):
        return [attrs.evolve(answer, rows=rows) for rows in _other_rows(answer.rows)]
    return _other_rows(answer)


def _other_insertions(told: Insertion) -> list[Insertion]:
    lies = [attrs.evolve(told, verdict=verdict) for verdict in Inserted if verdict != told.verdict]
    if told.verdict is Inserted.STORED:
        return lies
    return [*lies, attrs.evolve(told, generation=told.generation + 1), attrs.evolve(told, state="of another")]


def _other_rows(rows: Sequence[Row | None]) -> list[list[Row | None]]:
    lies: list[list[Row | None]] = []
    for at, row in enumerate(rows):
        if row is not None:
            others = (
                {"token": "another"},
                {"attempts": row.attempts + 1},
                {"generation": row.generation + 1},
                {"lease_losses": row.lease_losses + 1},
                {"due_ms": row.due_ms + 1},
                {"body": b"another"},
                {"op": "another"},
                {"postpones": row.postpones + 1},
            )
            lies += [[*rows[:at], attrs.evolve(row, **other), *rows[at + 1 :]] for other in others]
    return lies


def test_an_answer_that_never_came_may_have_happened_or_not() -> None:
    for happened in (True, False):
        story = Story()
        story.insert()
        row = story.claim()
        change = changes.succeed(row, story.op(), KEEP_MS)
        call = story.history.ask("w", "apply", [[change]], {}, story.clock.now_ms())
        assert call is not None
        if happened:
            done(story.store.apply(QUEUE, [change]))
        assert story.judged() == []


def test_a_claim_without_an_answer_is_known_by_its_token() -> None:
    story = Story()
    story.insert()
    claimed: Claimed = story.ask("claim", Claim(op="c", types=["t"], lease_ms=LEASE_MS, owner="w"))
    assert len(claimed.rows) == 1
    story.calls[-1].answered, story.calls[-1].answer = math.inf, None
    story.lapse("z")
    assert story.judged() == []


def test_a_loss_behind_the_callers_back_is_refused() -> None:
    story = Story()
    story.insert()
    story.store._queues[QUEUE].drop(story.store._queues[QUEUE].rows["a"])
    assert "at best" in story.judged()[0]


def test_two_leases_at_once_are_refused() -> None:
    story = Story()
    story.insert()
    first = story.claim("x")
    story.store._queues[QUEUE].rows["a"].state = "pending"
    story.store._queues[QUEUE].index(story.store._queues[QUEUE].rows["a"])
    second = story.claim("y")
    assert first.token != second.token
    assert story.judged() != []


def test_a_lapse_before_its_time_is_refused() -> None:
    story = Story()
    story.insert()
    row = story.claim("x")
    change = changes.lapse(row, story.op(), on_uncertain="retry", max_lease_losses=3)
    assert story.apply(attrs.evolve(change, lapsed=False)) == "done"
    story.calls[-1].args[0][0].lapsed = True
    assert story.judged() != []


@pytest.mark.parametrize("late", ["postpone", "try_again", "succeed", "release"])
def test_a_settle_that_comes_late_is_accepted_while_its_token_is_still_the_rows(late: str) -> None:
    story = Story()
    story.insert()
    row = story.claim("x")
    story.lapse("y")
    made: dict[str, Callable[[], Change]] = {
        "postpone": lambda: changes.postpone(row, story.op(), 300),
        "try_again": lambda: changes.try_again(row, story.op(), attrs.evolve(FAILURE), 300),
        "succeed": lambda: changes.succeed(row, story.op(), KEEP_MS),
        "release": lambda: changes.release(row, story.op()),
    }
    change = made[late]()
    assert story.apply(change, "x") == "done"
    assert story.judged() == []
    story.calls[-1].answer = [Verdict.STALE]
    assert story.judged() != []


def test_a_settle_that_comes_after_the_next_claim_changes_nothing() -> None:
    story = Story()
    story.insert()
    row = story.claim("x")
    story.lapse("y")
    story.claim("y")
    change = changes.postpone(row, story.op(), 300)
    assert story.apply(change, "x") == "stale"
    assert story.judged() == []
    assert story.apply(attrs.evolve(change, token=None), "x") == "done"  # its fence was forgotten
    assert story.judged() != []


def test_a_purge_without_its_generation_is_refused_once_the_letter_was_replayed() -> None:
    story = Story()
    story.insert()
    story.apply(changes.die(story.claim("x"), story.op(), Reason.REJECTED, attrs.evolve(FAILURE), None), "x")
    page: Slice = story.ask("scan", Scan(), who="operator")
    story.ask("scan", Scan(), who="other")
    story.apply(changes.replay(page.rows[0], story.op()), "other")
    story.apply(changes.die(story.claim("x"), story.op(), Reason.REJECTED, attrs.evolve(FAILURE), None), "x")
    assert story.judged() == []
    purge = changes.purge(page.rows[0], story.op(), KEEP_MS)
    assert story.apply(attrs.evolve(purge, generation=None), "operator") == "done"
    assert story.judged() != []


def test_keys_bind_the_tasks_that_share_one() -> None:
    story = Story()
    story.insert("a", key="k", digest="x")
    story.insert("b", key="k", digest="x")
    story.ask("insert", [NewRow(id="c", type="t", key="k", digest="y"), NewRow(id="d", type="t")])
    assert [call.answer[0].verdict for call in story.calls] == ["stored", "exists", "key_conflict"]
    assert story.judged() == []
    story.calls[1].answer = [attrs.evolve(story.calls[1].answer[0], verdict=Inserted.STORED, id="b")]
    assert story.judged() != []
