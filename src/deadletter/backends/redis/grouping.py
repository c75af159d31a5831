"""Letters by cause, type or reason, from what is counted as they come and go: no letter is read but the last of each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from ...model.row import Grouped, Scan
from .keys import BETWEEN, escaped, unescaped

INDEXES = {"fingerprint": "dx:fp:", "type": "dx:type:", "reason": "dx:reason:"}  # what can be grouped by
_CAUSE = ("fingerprint", "type", "reason", "release")  # the parts of a cause, as journal.lua joins them
_UNCOUNTED = ("after", "since_ms", "until_ms", "priority", "error_type", "release", "text")


def answerable(scan: Scan, by: str) -> bool:
    """Whether causes can tell which letters a scan means."""
    return by in INDEXES and all(getattr(scan, name) is None for name in _UNCOUNTED)


def releases_by_key(causes: Sequence[bytes], scan: Scan, by: str) -> dict[str, set[str]] | None:
    """The groups that a scan means, each with its releases; None where it means a part of one.

    Keys are escaped, as they stand in the names of indexes.
    """
    at, wanted = _CAUSE.index(by), [(n, escaped(str(value))) for n, value in _wishes(scan)]
    meant: dict[str, set[str]] = {}
    others: set[str] = set()
    for cause in causes[::2]:
        parts = cause.decode().split(BETWEEN)
        key = parts[at]
        if not all(parts[n] == value for n, value in wanted):
            others.add(key)
        elif not key:  # what has none is in no index
            return None
        else:
            releases = meant.setdefault(key, set())
            if parts[3]:
                releases.add(unescaped(parts[3]))
    return None if others & meant.keys() else meant


def _wishes(scan: Scan) -> Iterable[tuple[int, object]]:
    for n, name in enumerate(_CAUSE[:3]):
        value = getattr(scan, name)
        if value is not None:
            yield n, value


def joined(parts: Iterable[Sequence[Grouped]]) -> list[Grouped]:
    """The groups of several shards, by key."""
    found: dict[str, Grouped] = {}
    for group in (group for part in parts for group in part):
        known = found.get(group.key)
        if known is None:
            found[group.key] = group
            continue
        found[group.key] = attrs.evolve(
            known,
            count=known.count + group.count,
            first_ms=min(known.first_ms, group.first_ms),
            newest=max(known.newest, group.newest, key=lambda row: (row.time_ms, row.id)),
            releases=known.releases | group.releases,
        )
    return list(found.values())
