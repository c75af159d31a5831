"""What a store promises of the groups that it tells by itself."""

from __future__ import annotations

import itertools
from typing import Any

from ..model.row import Row, Scan
from ..rules import changes
from .material import KEEP_MS, Promises, Store, failure, letter, new, op

BY = ("fingerprint", "type", "reason", "error_type", "worker", "release")
NARROW: tuple[dict[str, Any], ...] = (
    {},
    {"type": "u"},
    {"reason": "rejected"},
    {"fingerprint": "beef"},
    {"type": "u", "reason": "rejected"},
    {"priority": 2},
    {"error_type": "KeyError"},
    {"release": "2.0"},
    {"type": "nobody"},
)


class GroupPromises(Promises):
    """Promises about ``groups``; a store that answers None keeps them all."""

    async def test_groups_are_those_of_the_letters_that_match(self, store: Store) -> None:
        """Keys, counts, first and last deaths and releases are what a scan of the same letters tells."""
        await _mixed(store)
        for by, narrow in itertools.product(BY, NARROW):
            told = await store.backend.groups(store.queue, Scan(**narrow), by)
            if told is None:
                continue
            expected = _recounted(await store.scanned(history=0, **narrow), by)
            found = {group.key: (group.count, group.first_ms, group.releases) for group in told}
            assert (by, narrow, found) == (by, narrow, expected)
            assert all(getattr(group.newest, by) == group.key and group.newest.state == "dead" for group in told)

    async def test_groups_tell_the_letter_that_died_last(self, store: Store) -> None:
        """The sample of a group is its newest letter."""
        for id_ in "abc":
            await store.put(letter(id_))
            store.pass_ms(10)
        told = await store.backend.groups(store.queue, Scan(), "type")
        assert told is None or [(group.newest.id, group.count) for group in told] == [("c", 3)]

    async def test_groups_follow_what_comes_and_goes(self, store: Store) -> None:
        """Purged and replayed letters are counted no more, and a group of nothing is none."""
        await _mixed(store)
        await store.must(
            changes.purge(await store.row("l0"), op(), KEEP_MS), changes.replay(await store.row("l1"), op())
        )
        for by in ("fingerprint", "type", "reason"):
            told = await store.backend.groups(store.queue, Scan(), by)
            expected = _recounted(await store.scanned(history=0), by)
            assert told is None or {group.key: group.count for group in told} == {
                key: count for key, (count, _, _) in expected.items()
            }
        for n in range(2, 9):
            await store.must(changes.purge(await store.row(f"l{n}"), op(), KEEP_MS))
        assert await store.backend.groups(store.queue, Scan(), "type") in (None, [])


async def _mixed(store: Store) -> None:
    """Nine letters of two types, reasons, causes and releases, and one row that waits."""
    await store.put(new("p"))
    for n in range(9):
        told = failure(
            fingerprint="beef" if n % 2 else "f00d",
            error_type="KeyError" if n % 2 else "ValueError",
            release=("1.0", "2.0", None)[n % 3],
            worker=f"w{n % 2}",
        )
        fields = {"type": "u" if n in {1, 4, 8} else "t", "reason": "rejected" if n in {1, 2, 4} else "captured"}
        await store.put(letter(f"l{n}", priority=n % 3, history=[told], **fields))
        store.pass_ms(10)


def _recounted(rows: list[Row], by: str) -> dict[str, tuple[int, int, frozenset[str]]]:
    found: dict[str, tuple[int, int, frozenset[str]]] = {}
    for row in rows:
        key = getattr(row, by) or ""
        count, first_ms, releases = found.get(key, (0, row.time_ms, frozenset[str]()))
        also = {row.release} if row.release else set[str]()
        found[key] = (count + 1, min(first_ms, row.time_ms), releases | also)
    return found
