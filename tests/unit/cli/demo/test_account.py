"""The demo's account closes only where every task is where it must be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from deadletter.cli.demo.account import Account, settle

GOOD: Mapping[str, Any] = {
    "accepted": ["a", "b", "c"],
    "log": ["a", "b", "a"],
    "states": {"a": "succeeded", "b": "succeeded", "c": "dead"},
    "uncertain": {"a"},
    "lifetime": {"enqueued": 3, "retry_attempts": 4, "dead": 2},
    "replayed": 1,
}


def _account(**changes: Any) -> Account:
    return settle(**{**GOOD, **changes})


def test_it_closes_where_each_task_is_delivered_or_dead() -> None:
    account = _account()
    assert account.closes
    assert (account.accepted, account.delivered, account.retried, account.dead) == (3, 2, 4, 2)
    assert (account.replayed, account.still_dead, account.lost, account.delivered_twice) == (1, 1, 0, 1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"log": ["a"]}, "1 accepted, and neither in the receiver's log nor dead (b)"),
        ({"log": ["a", "b", "x"]}, "1 in the receiver's log, and never accepted (x)"),
        ({"states": {"a": "succeeded", "b": "pending", "c": "dead"}}, "1 neither succeeded nor dead at the end (b)"),
        ({"states": {"a": "succeeded", "b": "succeeded"}, "log": ["a", "b", "c"]}, "neither succeeded nor dead"),
        ({"log": ["a", "b", "c"]}, "1 dead, and in the receiver's log (c)"),
        ({"log": ["a", "b", "b"]}, "1 delivered twice, though no worker vanished over them (b)"),
        ({"lifetime": {"enqueued": 4}}, "4 enqueued as the queue counts, 3 accepted"),
    ],
)
def test_it_does_not_close_and_says_why(changes: Mapping[str, Sequence[str]], said: str) -> None:
    account = _account(**changes)
    assert not account.closes
    assert said in "; ".join(account.problems)
