from __future__ import annotations

import math
from datetime import timedelta

import pytest

from deadletter import DeadLetterQueue, InvalidTask, Task
from deadletter.retry import Exponential, Never, Schedule
from deadletter.rules.redaction import DEFAULT_PATHS


def options(**given):
    return DeadLetterQueue("memory://", **given).options


def test_the_defaults_are_those_of_the_contract(monkeypatch):
    monkeypatch.delenv("DEADLETTER_RELEASE", raising=False)
    told = options()
    assert told.name == "default"
    assert told.policy == Schedule([5, 30, 120, 300], jitter=0.1)
    assert told.keep_letters_ms == 7 * 24 * 3600 * 1000
    assert told.retention is None
    assert told.keep_finished_ms == 3600 * 1000
    assert (told.on_uncertain, told.release, told.capture_timeout, told.alert_threshold) == ("retry", None, 2, 10)
    assert (told.lease_ms, told.max_lease_losses, told.max_runtime) == (60_000, 3, 3600)
    assert (told.key_ms, told.max_payload_bytes) == (24 * 3600 * 1000, 1_000_000)
    assert told.hidden_paths == DEFAULT_PATHS


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": 3}, "name"),
        ({"max_retries": -1}, "max_retries"),
        ({"dlq_ttl": -1}, "dlq_ttl"),
        ({"retention": 100}, "retention"),
        ({"keep_finished": 899}, "keep_finished"),
        ({"on_uncertain": "perhaps"}, "on_uncertain"),
        ({"redact": "card"}, "redact"),
        ({"redact": ("a\nb",)}, "redact"),
        ({"redact": ("a..b",)}, "redact"),
        ({"redact": ("$defaults",)}, "redact"),
        ({"capture_timeout": "soon"}, "capture_timeout"),
        ({"lease": 0.01}, "lease"),
        ({"max_lease_losses": 0}, "max_lease_losses"),
        ({"max_runtime": -1}, "max_runtime"),
        ({"idempotency_ttl": float("nan")}, "idempotency_ttl"),
        ({"max_payload_bytes": 0}, "max_payload_bytes"),
    ],
    ids=lambda value: str(value).partition(" at 0x")[0],
)
def test_an_option_that_cannot_be_meant_is_named(given, field):
    with pytest.raises(InvalidTask, match=field) as caught:
        options(**given)
    assert isinstance(caught.value, ValueError)


def test_two_schedules_are_one_too_many():
    with pytest.raises(TypeError, match="retry and retry_delays"):
        options(retry=[1], retry_delays=[1])


def test_a_schedule_may_be_given_in_three_ways():
    assert options(retry=[1, timedelta(seconds=2)]).policy == Schedule([1, 2], jitter=0.1)
    assert options(retry_delays=[1, 2]).policy == Schedule([1, 2], jitter=0.1)
    assert options(retry=Never()).policy == Never()
    with pytest.raises(TypeError):
        options(retry=3)


def test_durations_may_be_timedeltas():
    told = options(dlq_ttl=None, keep_finished=timedelta(hours=2), lease=timedelta(seconds=5), max_runtime=0)
    assert (told.keep_letters_ms, told.keep_finished_ms, told.lease_ms) == (None, 7_200_000, 5_000)
    assert told.max_runtime == math.inf


def test_the_release_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("DEADLETTER_RELEASE", "1.2.3")
    assert options().release == "1.2.3"
    assert options(release="2").release == "2"
    monkeypatch.setenv("DEADLETTER_RELEASE", "")
    assert options().release is None


@pytest.mark.parametrize(
    ("task", "processor", "queue", "policy", "expected"),
    [
        (1, 2, 3, Schedule([9]), 1),
        (0, 2, 3, Schedule([9]), 0),
        (None, 2, 3, Schedule([9]), 2),
        (None, None, 3, Schedule([9]), 3),
        (None, None, None, Schedule([9, 9]), 2),
        (None, None, None, Exponential(), 10),
    ],
)
def test_who_decides_how_many_retries(task, processor, queue, policy, expected):
    told = options(max_retries=queue)
    assert told.retries(Task(type="t", max_retries=task), processor, policy) == expected


def test_a_keyed_task_is_remembered_as_long_as_its_key():
    told = options(keep_finished=7200, idempotency_ttl=60)
    assert told.keep_ended_ms(keyed=False) == told.keep_ended_ms(keyed=True) == 7_200_000
    told = options(keep_finished=900, idempotency_ttl=1000)
    assert (told.keep_ended_ms(keyed=False), told.keep_ended_ms(keyed=True)) == (900_000, 1_000_000)


def test_hidden_paths_may_leave_the_defaults_out():
    assert options(redact=("card",), redact_defaults=False).hidden_paths == ("card",)
    assert options(redact=("card",)).hidden_paths == ("card", *DEFAULT_PATHS)


def test_uncertain_is_the_tasks_own_word_first():
    told = options(on_uncertain="dead")
    assert told.uncertain(Task(type="t")) == "dead"
    assert told.uncertain(Task(type="t", on_uncertain="retry")) == "retry"
