"""Thresholds with hysteresis."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from deadletter.alerts.levels import Gauge, Limits

LIMITS = Limits(threshold=10, critical=100)
REPEAT = 1_000_000


def told(counts: Sequence[int], limits: Limits = LIMITS, step_ms: int = 1) -> list[str]:
    gauge = Gauge()
    kinds = [gauge.see(count, limits, 0, REPEAT, n * step_ms) for n, count in enumerate(counts, 1)]
    return [kind for kind in kinds if kind is not None]


def test_it_is_told_above_the_threshold_and_not_at_it() -> None:
    assert told([10]) == []
    assert told([11]) == ["threshold_exceeded"]


def test_a_count_that_swings_around_the_limit_is_told_once() -> None:
    assert told([9, 11, 10, 11, 9, 12, 9, 11]) == ["threshold_exceeded"]


def test_it_is_resolved_at_four_fifths() -> None:
    assert told([11, 9, 8]) == ["threshold_exceeded", "threshold_resolved"]


def test_it_gets_critical_and_calms_down_in_one_word() -> None:
    assert told([50, 101, 90, 101, 70, 8]) == ["threshold_exceeded", "threshold_critical", "threshold_resolved"]


def test_a_jump_is_critical_at_once() -> None:
    assert told([1000, 0]) == ["threshold_critical", "threshold_resolved"]


def test_it_is_told_again_while_it_lasts() -> None:
    assert told([11] * 5, step_ms=REPEAT // 2) == ["threshold_exceeded"] * 3


def test_a_level_is_told_once_it_has_held_for_group_wait() -> None:
    gauge = Gauge()
    assert [gauge.see(11, LIMITS, 10, REPEAT, now) for now in range(10)] == [None] * 10
    assert gauge.next_ms(10, REPEAT) == 10
    assert gauge.see(11, LIMITS, 10, REPEAT, 10) == "threshold_exceeded"


def test_a_peak_shorter_than_group_wait_is_not_told() -> None:
    gauge = Gauge()
    assert [gauge.see(count, LIMITS, 10, REPEAT, now) for now, count in ((0, 11), (5, 3), (20, 3))] == [None] * 3
    assert gauge.next_ms(10, REPEAT) is None


def test_a_rise_that_goes_on_is_told_after_one_wait_as_what_it_is_by_then() -> None:
    gauge = Gauge()
    seen = [gauge.see(count, LIMITS, 10, REPEAT, now) for now, count in ((0, 11), (5, 60), (9, 300), (10, 900))]
    assert seen == [None, None, None, "threshold_critical"]
    assert (gauge.since_ms, gauge.peak) == (0, 900)


def test_thresholds_of_nothing_work() -> None:
    assert told([0, 1, 0], Limits(0, 0)) == ["threshold_critical", "threshold_resolved"]


@given(st.lists(st.integers(0, 300), max_size=60), st.integers(0, 50), st.integers(1, 10))
def test_resolved_follows_exceeded_and_the_last_word_is_right(
    counts: Sequence[int], threshold: int, factor: int
) -> None:
    limits = Limits(threshold, threshold * factor)
    kinds = told(counts, limits)
    for earlier, later in zip(["threshold_resolved", *kinds], kinds, strict=False):
        assert later != earlier or later == "threshold_critical", "nothing is told twice"
        assert later != "threshold_resolved" or earlier != "threshold_resolved"
    if counts and counts[-1] > threshold:
        assert kinds[-1] != "threshold_resolved"
    if counts and counts[-1] == 0 and kinds:
        assert kinds[-1] == "threshold_resolved"
