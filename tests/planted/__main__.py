"""Plant each bug, and say how long it took until somebody noticed.

python -m tests.planted                      all, into docs/explanation/planted.json and its table
python -m tests.planted --where SQL --look   those in SQL, and only say it
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ..proof import page
from .bug import Bug
from .every import BUGS
from .notice import SEARCHES, search

FILE = "planted.json"


def measured(bug: Bug) -> dict[str, Any]:
    """What is written down of a bug."""
    found = search(bug)
    return {
        "bug": bug.name,
        "kind": bug.kind,
        "where": bug.where,
        "noticed_by": bug.noticed_by,
        "seeds": found.seeds if found else None,
        "seconds": found.seconds if found else None,
        "commit": page.commit(),
    }


def table_of(document: dict[str, Any]) -> list[str]:
    """The table of the page."""
    bugs = document["bugs"]
    caught = sum(entry["seeds"] is not None for entry in bugs)
    commits = ", ".join(sorted({entry["commit"] for entry in bugs}))
    head = (
        f"{caught} of {len(bugs)} are noticed. Commit {commits}; {document['machine']};"
        f" {document['began']} to {document['ended']}. Seeds count from the first of the search to the one that showed it."
    )
    rows = [
        (entry["where"], entry["kind"], entry["bug"], entry["noticed_by"], entry["seeds"] or "**none**")
        for entry in sorted(
            bugs, key=lambda entry: (entry["where"] != "Python", entry["where"], entry["kind"], entry["bug"])
        )
    ]
    return [head, "", *page.table(("in", "spoilt", "the bug", "noticed by", "seeds"), rows)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.planted")
    parser.add_argument("--where", choices=("Python", "SQL", "Lua"))
    parser.add_argument("--bug", help="part of a name")
    parser.add_argument("--look", action="store_true", help="write nothing")
    said = parser.parse_args()
    began = page.now()
    chosen = [bug for bug in BUGS if said.where in (None, bug.where) and (said.bug or "") in bug.name]
    entries = []
    for bug in chosen:
        entries.append(measured(bug))
        print("{where}: {bug}: {seeds} seeds, {seconds} s".format(**entries[-1]), flush=True)
    missed = [entry["bug"] for entry in entries if entry["seeds"] is None]
    print(f"{len(entries) - len(missed)} of {len(entries)} noticed", *missed, sep="\n  ")
    if not said.look:
        known = {(entry["where"], entry["bug"]) for entry in entries}
        before = page.load(FILE) if len(chosen) < len(BUGS) else None
        names = {(bug.where, bug.name) for bug in BUGS}
        kept = before["bugs"] if before is not None else []
        entries += [one for one in kept if (one["where"], one["bug"]) in names - known]
        document = {
            "machine": page.machine(),
            "began": before["began"] if before is not None else began,
            "ended": page.now(),
            "seeds": {name: how.seeds for name, how in SEARCHES.items()},
            "bugs": entries,
        }
        page.save(FILE, document)
        page.write("planted", table_of(document))
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
