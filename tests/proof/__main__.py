"""Prove it at volume, and write what was seen into docs/explanation/proof.md.

python -m tests.proof                          the short tier; goes on where it stopped
python -m tests.proof --long --minutes 90      the long one
python -m tests.proof --part sim-redis --seed 7   one batch again, alone
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from . import page
from .parts import PARTS
from .run import Done, Log, batch, figures, run, wanted

TIERS = ("short", "long")


def file_of(tier: str) -> str:
    """The JSON of a tier."""
    return f"proof-{tier}.json"


def table_of(tiers: dict[str, Any]) -> list[str]:
    """Wanted and seen, tier by tier."""
    lines: list[str] = []
    for tier, document in tiers.items():
        measured = f"Commit {document['commit']}; {document['machine']}; {document['began']} to {document['ended']}."
        head = ("measure", "wanted", "seen", "failed", "seeds", "seconds")
        lines += [f"**The {tier} tier.** {measured}", "", *page.table(head, map(_row, document["parts"].items())), ""]
    return lines[:-1]


def _row(pair: tuple[str, dict[str, Any]]) -> tuple[object, ...]:
    name, part = pair
    seeds = f"`{name}` {part['seeds'][0]}-{part['seeds'][1]}" if part["seeds"] else f"`{name}`"
    return (
        part["measure"],
        f"{part['wanted']:,}",
        f"{part['count']:,}",
        len(part["failed"]),
        seeds,
        f"{part['seconds']:,.0f}",
    )


def write() -> None:
    """The table, from the JSON of the tiers that there are."""
    found = {tier: page.load(file_of(tier)) for tier in TIERS}
    page.write("figures", table_of({tier: told for tier, told in found.items() if told is not None}))


def tell(done: Done) -> None:
    """A line a batch."""
    said = "failed" if done.failed is not None else f"{done.count} done"
    print(f"{done.ended} {done.part} seed {done.seed}: {said} in {done.seconds:g} s", flush=True)
    if done.failed is not None:
        print(done.failed, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.proof")
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--part", action="append", choices=PARTS)
    parser.add_argument("--seed", type=int, help="one batch, with nothing written")
    parser.add_argument("--minutes", type=float, default=24 * 60)
    parser.add_argument("--log", type=Path, default=page.ROOT / ".proof")
    said = parser.parse_args()
    parts = said.part or list(PARTS)
    if said.seed is not None:
        ended = [batch(part, said.seed) for part in parts]
        for done in ended:
            tell(done)
        return int(any(done.failed is not None for done in ended))
    tier = TIERS[said.long]
    log = Log(said.log / f"{tier}.jsonl")
    todo = wanted(parts, log, long=said.long)
    print(f"{len(todo)} batches to do, {len(log.done)} are done", flush=True)
    run(todo, log, minutes=said.minutes, tell=tell)
    document = figures(log, long=said.long)
    page.save(file_of(tier), document)
    write()
    short_of = [name for name in parts if document["parts"][name]["count"] < document["parts"][name]["wanted"]]
    if short_of:
        print("not yet there:", ", ".join(short_of), "- start it again to go on", flush=True)
    return int(any(part["failed"] for part in document["parts"].values()) or bool(short_of))


if __name__ == "__main__":
    sys.exit(main())
