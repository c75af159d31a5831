"""What a queue's counts become, without a store."""

from __future__ import annotations

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from deadletter.metrics.families import Families, Names, Snapshot, fill
from deadletter.metrics.labels import MOST, Bounded, label
from deadletter.model.row import Counts


def counts(**fields) -> Counts:
    told = {"tally": {}, "lifetime": {}, "oldest_pending_ms": None, "oldest_dead_ms": None, "overdue": {}, "now_ms": 0}
    return Counts(**{**told, **fields})


def samples(*seen: Snapshot, names: Names | None = None) -> dict[tuple[str, frozenset], float]:
    families = Families()
    for each in seen:
        fill(families, each, names or Names())

    class Filled:
        def collect(self):
            return families.by_name.values()

    text = generate_latest(Filled()).decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(found: dict, name: str, **labels: str) -> float:
    return found[name, frozenset({"queue": "q", **labels}.items())]


def seen(told: Counts | None, **fields) -> Snapshot:
    return Snapshot(queue="q", counts=told, alerts=fields.pop("alerts", {}), **fields)


def test_every_series_of_the_contract_is_there_at_zero():
    found = samples(seen(counts()))
    for priority in ("high", "normal", "low"):
        assert of(found, "dlq_items_total", priority=priority) == 0
    for name in ("task_retry_attempts_total", "task_retry_success_total"):
        assert of(found, name) == 0
    for name in ("dlq_oldest_age_seconds", "dlq_pending", "dlq_running", "dlq_overdue"):
        assert of(found, name) == 0
    assert of(found, "task_failures_total", type="other", error="other") == 0
    for state in ("pending", "running", "succeeded", "dead"):
        assert of(found, "task_duplicates_total", state=state) == 0
    for name in ("dlq_alerts_sent_total", "dlq_alerts_failed_total"):
        assert of(found, name, channel="slack", kind="task_dead") == 0
    assert set(found.values()) == {0.0, 1.0}, "and nothing is counted but that the store is up"


def test_counts_become_samples():
    told = counts(
        tally={("dead", 0, "a", "permanent"): 2, ("dead", 1, "a", "rejected"): 3, ("pending", 1, "b", ""): 4},
        lifetime={
            ("failures", "a", "E"): 7,
            ("failures", "b", "F"): 1,
            ("retry_attempts", "a", ""): 5,
            ("retry_attempts", "b", ""): 1,
            ("retry_success", "b", ""): 1,
            ("duplicates", "a", "dead"): 2,
            ("dead", "a", "permanent"): 9,
            ("aged_out", "a", ""): 4,
        },
        oldest_dead_ms=1_000,
        oldest_pending_ms=9_500,
        overdue={"b": 2, "c": 1},
        now_ms=10_000,
    )
    alerts = {("alerts_sent", "slack", "task_dead"): 3, ("alerts_failed", "pager", "test"): 1}
    found = samples(seen(told, alerts=alerts, workers=3, paused=1, spooled=2, monitored=False))
    assert of(found, "dlq_monitor_absent") == 1
    assert of(found, "dlq_items_total", priority="high") == of(found, "dlq_items", priority="high") == 2
    assert of(found, "dlq_items_total", priority="normal") == 3
    assert of(found, "dlq_items_by_type", type="a") == 5
    assert of(found, "dlq_pending") == 4
    assert of(found, "dlq_overdue") == 3
    assert of(found, "dlq_oldest_age_seconds") == 9
    assert of(found, "dlq_pending_oldest_age_seconds") == 0.5
    assert of(found, "task_failures_total", type="a", error="E") == 7
    assert of(found, "task_failures_total", type="b", error="F") == 1
    assert of(found, "task_retry_attempts_total") == 6
    assert of(found, "task_retry_success_total") == 1
    assert of(found, "task_duplicates_total", state="dead") == 2
    assert of(found, "task_dead_total", reason="permanent") == 9
    assert of(found, "dlq_removed_total", how="aged_out") == 4
    assert of(found, "dlq_alerts_sent_total", channel="slack", kind="task_dead") == 3
    assert of(found, "dlq_alerts_failed_total", channel="pager", kind="test") == 1
    assert (of(found, "dlq_workers"), of(found, "dlq_paused"), of(found, "dlq_spooled")) == (3, 1, 2)


def test_a_store_that_is_away_is_told_and_nothing_is_made_up():
    found = samples(seen(None))
    assert found == {("dlq_up", frozenset({("queue", "q")})): 0.0}


def test_queues_of_one_process_share_families():
    other = Snapshot(queue="r", counts=counts(), alerts={})
    found = samples(seen(counts()), other)
    assert found["dlq_up", frozenset({("queue", "r")})] == of(found, "dlq_up") == 1


def test_twenty_thousand_types_make_few_series_and_lose_no_count():
    lifetime = {("failures", f"type {n}", f"error {n}"): 1 for n in range(20_000)}
    lifetime |= {("failures", "busy", "E"): 1000}
    tally = {("dead", 1, f"type {n}", "rejected"): 1 for n in range(20_000)}
    found = samples(seen(counts(lifetime=lifetime, tally=tally)))
    failures = {key: n for key, n in found.items() if key[0] == "task_failures_total"}
    assert len(failures) <= 2 * MOST + 1
    assert sum(failures.values()) == 21_000
    assert of(found, "task_failures_total", type="busy", error="E") == 1000, "the busiest have names"
    by_type = {key: n for key, n in found.items() if key[0] == "dlq_items_by_type"}
    assert len(by_type) <= MOST + 1
    assert sum(by_type.values()) == 20_000


def test_many_pairs_of_few_types_and_errors_are_bounded_too():
    lifetime = {("failures", f"t{a}", f"E{b}"): 1 for a in range(99) for b in range(99)}
    found = samples(seen(counts(lifetime=lifetime)))
    failures = {key: n for key, n in found.items() if key[0] == "task_failures_total"}
    assert len(failures) <= 1001
    assert sum(failures.values()) == 99 * 99


def test_a_series_never_falls_when_busier_types_come():
    """A counter that falls is a restart to Prometheus, and its rate a lie."""
    names = Names()
    before = {("failures", f"t{n}", "E"): 1 for n in range(150)}
    first = samples(seen(counts(lifetime=before)), names=names)
    after = {key: n + 1 for key, n in before.items()} | {("failures", f"new{n}", "E"): 500 for n in range(150)}
    second = samples(seen(counts(lifetime=after)), names=names)
    assert all(second[key] >= n for key, n in first.items() if key[0].endswith("_total"))


@pytest.mark.parametrize("name", ['"} 1\nfake_total 9', "a\\", "ü\u2028", "{{7*7}}", "<script>", " "])
def test_hostile_names_stay_inside_their_label(name):
    told = counts(lifetime={("failures", name, name): 3}, tally={("dead", 1, name, "rejected"): 1})
    found = samples(seen(told))
    assert of(found, "task_failures_total", type=name, error=name) == 3
    assert not any(key[0].startswith("fake") for key in found)


def test_labels_are_short_and_never_empty():
    assert (label("x"), label(""), len(label("x" * 10_000))) == ("x", "other", 200)


def test_a_bounded_label_keeps_who_is_in():
    names = Bounded(2)
    assert [names("a"), names("b"), names("c"), names("a")] == ["a", "b", "other", "a"]
    names.admit(["d"])
    assert names("d") == "other"
