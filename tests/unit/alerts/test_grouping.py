"""Deaths by cause: nothing is lost, nothing floods, and a dead monitor's book goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deadletter.alerts.grouping import (
    BURST,
    FORGET_MS,
    MORE,
    MOST,
    NEW,
    OTHER,
    REGRESSED,
    RESOLVED,
    STILL,
    Book,
    Death,
    Telling,
    Timing,
)

TIMING = Timing(wait_ms=5_000, interval_ms=300_000, repeat_ms=4 * 3600_000)
HOUR = 3600_000


def death(at_ms: int, fingerprint: str = "a", number: int = 0, route: str = "") -> Death:
    return Death(f"{fingerprint}-{at_ms}-{number}", "mail.send", fingerprint, at_ms, route)


@attrs.define
class Playing:
    """A book on a virtual clock: time goes from one moment of its own to the next."""

    book: Book = attrs.field(factory=lambda: Book(TIMING))
    now_ms: int = 0
    left: dict[str, int] = attrs.field(factory=dict)
    told: list[tuple[int, Telling]] = attrs.field(factory=list)
    restarts: bool = False

    def to(self, end_ms: int) -> None:
        """Go on until then, telling whatever falls due on the way."""
        while True:
            due = self.book.next_ms()
            if due is None or max(due, self.now_ms) > end_ms:
                break
            self.now_ms = max(due, self.now_ms + 1)
            self._tell()
        self.now_ms = max(self.now_ms, end_ms)
        self._tell()

    def _tell(self) -> None:
        if self.restarts:
            self.book = Book.load(TIMING, json.loads(json.dumps(self.book.dump())))
        looked: Mapping[str, int] = {
            cause.key: self.left.get(cause.key, 1) for cause in self.book.to_look_at(self.now_ms)
        }
        self.told += [(self.now_ms, telling) for telling in self.book.tell(self.now_ms, looked)]

    def die(self, *deaths: Death) -> None:
        self.to(deaths[0].at_ms)
        self.book.absorb(deaths)

    @property
    def words(self) -> list[tuple[int, list[tuple[str, int, int]]]]:
        """When, and of each cause its status, its count, and how many are new."""
        return [
            (at_ms, [(each.status, each.cause.count, each.fresh) for each in telling.said])
            for at_ms, telling in self.told
        ]


def test_one_death_is_told_after_group_wait() -> None:
    playing = Playing()
    playing.die(death(1_000))
    playing.to(60_000)
    assert playing.words == [(6_000, [(NEW, 1, 1)])]


def test_a_storm_of_ten_thousand_with_one_cause_is_one_alert_that_says_so() -> None:
    playing = Playing()
    for at_ms in range(10_000):
        playing.die(death(at_ms))
    playing.to(200_000)
    assert playing.words == [(9_999 + 1_000, [(NEW, 10_000, 10_000)])]


def test_a_storm_that_does_not_end_is_told_all_the_same() -> None:
    playing = Playing()
    for at_ms in range(0, 60_000, 100):
        playing.die(death(at_ms))
    playing.to(400_000)
    assert [(at, said[0][0]) for at, said in playing.words] == [(20_000, NEW), (320_000, MORE)]
    assert sum(fresh for _, said in playing.words for _, _, fresh in said) == 600
    assert playing.words[-1][1][0][1] == 600, "the update says the whole number"


def test_what_comes_later_waits_for_group_interval() -> None:
    playing = Playing()
    playing.die(death(0))
    playing.die(death(10_000))
    playing.die(death(20_000))
    playing.to(10 * 60_000)
    assert playing.words == [(5_000, [(NEW, 1, 1)]), (305_000, [(MORE, 3, 2)])]


def test_letters_that_nobody_mends_are_told_again_after_repeat_interval() -> None:
    playing = Playing(left={"a": 1})
    playing.die(death(0))
    playing.to(9 * HOUR)
    assert [(said[0][0], at_ms // HOUR) for at_ms, said in playing.words] == [(NEW, 0), (STILL, 4), (STILL, 8)]


def test_a_cause_without_letters_is_resolved_once_and_regresses_when_it_kills_again() -> None:
    playing = Playing()
    playing.die(death(0), death(1))
    playing.to(60_000)
    playing.left["a"] = 0
    playing.to(HOUR)
    assert playing.words == [(5_000, [(NEW, 2, 2)]), (305_000, [(RESOLVED, 2, 0)])]
    playing.die(death(2 * HOUR))
    playing.left["a"] = 1
    playing.to(3 * HOUR)
    assert playing.words[2:] == [(2 * HOUR + 5_000, [(REGRESSED, 1, 1)])]


def test_a_resolved_cause_is_forgotten_after_a_week() -> None:
    playing = Playing(left={"a": 0})
    playing.die(death(0))
    playing.to(HOUR)
    playing.to(HOUR + FORGET_MS)
    assert playing.book.causes == {}


def test_many_causes_at_once_are_one_alert() -> None:
    playing = Playing()
    playing.die(*(death(0, f"cause-{n}") for n in range(BURST + 1)))
    playing.to(60_000)
    assert [len(telling.said) for _, telling in playing.told] == [BURST + 1]


def test_new_causes_one_after_the_other_do_not_flood() -> None:
    """After a burst the rest waits for the end of the interval, and comes as one."""
    playing = Playing()
    for n in range(100):
        playing.die(death(n * 2_000, f"cause-{n}"))
    playing.to(400_000)
    assert [len(telling.said) for _, telling in playing.told] == [1] * BURST + [100 - BURST]


def test_routes_are_told_apart() -> None:
    playing = Playing()
    playing.die(death(0, route="pager"), death(0, route="mail"))
    playing.to(60_000)
    assert sorted(telling.route for _, telling in playing.told) == ["mail", "pager"]


def test_what_is_held_is_told_when_the_hold_ends() -> None:
    book = Book(TIMING)
    book.absorb([death(0), death(1)])

    def night(_: str) -> int:
        return HOUR

    assert book.next_ms(night) == HOUR
    assert book.tell(10_000, {}, night) == []
    (telling,) = book.tell(HOUR, {}, night)
    assert telling.said[0].fresh == 2


def test_memory_is_bounded_and_every_death_still_counted() -> None:
    book = Book(TIMING)
    book.absorb(death(0, f"cause-{n}", n) for n in range(3 * MOST))
    assert len(book.causes) == MOST + 1
    assert sum(cause.count for cause in book.causes.values()) == 3 * MOST
    (telling,) = book.tell(60_000)
    assert {each.cause.key: each.fresh for each in telling.said}[OTHER] == 2 * MOST
    book.absorb([death(61_000, "late")])
    assert ("", "late") in book.causes, "what was told makes room"


@st.composite
def lives(draw: st.DrawFn) -> Sequence[tuple[int, str, int]]:
    """Bursts of deaths: when, of which cause, how many."""
    at_ms = 0
    bursts = []
    for _ in range(draw(st.integers(1, 25))):
        at_ms += draw(st.sampled_from([0, 1, 700, 4_000, 30_000, 299_999, 1_000_000]))
        bursts.append((at_ms, draw(st.sampled_from("abcdefgh")), draw(st.integers(1, 40))))
    return bursts


@pytest.mark.parametrize("restarts", [False, True], ids=["one monitor", "a new monitor at every step"])
@given(lives=lives(), mended=st.sets(st.sampled_from("abcdefgh")))
def test_every_death_is_told_exactly_once_and_no_cause_floods(
    *, restarts: bool, lives: Sequence[tuple[int, str, int]], mended: set[str]
) -> None:
    playing = Playing(restarts=restarts, left=dict.fromkeys(mended, 0))
    for at_ms, fingerprint, n in lives:
        playing.die(*(death(at_ms, fingerprint, number) for number in range(n)))
    playing.to(lives[-1][0] + 2 * TIMING.interval_ms)
    told: dict[str, int] = {}
    times: dict[str, list[int]] = {}
    for at_ms, telling in playing.told:
        for each in telling.said:
            told[each.cause.key] = told.get(each.cause.key, 0) + each.fresh
            if each.status == MORE:
                times.setdefault(each.cause.key, []).append(at_ms)
    died: dict[str, int] = {}
    for _, fingerprint, n in lives:
        died[fingerprint] = died.get(fingerprint, 0) + n
    assert told == died
    for moments in times.values():
        assert all(later - earlier >= TIMING.interval_ms for earlier, later in pairwise(moments))
    for start_ms, _ in playing.told:
        window = [at for at, _ in playing.told if start_ms <= at < start_ms + TIMING.interval_ms]
        assert len(window) <= 2 * BURST, "of any interval, however it lies, two bursts at most"


@settings(max_examples=25)
@given(lives=lives())
def test_a_book_that_was_stored_and_read_again_tells_the_same(lives: Sequence[tuple[int, str, int]]) -> None:
    whole, halves = Playing(), Playing(restarts=True)
    for playing in (whole, halves):
        for at_ms, fingerprint, n in lives:
            playing.die(*(death(at_ms, fingerprint, number) for number in range(n)))
        playing.to(lives[-1][0] + 6 * HOUR)
    assert whole.words == halves.words
