"""Draws the states of a task from what the machine really does: ``python docs/states.py``; a test compares.

Each verb is called with a row, and its change says from where to where it leads. So the picture cannot say what the
machine does not do. Colours are middle tones, readable on a light page and on a dark one.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path

from deadletter.model.record import Reason
from deadletter.model.row import DEAD, GONE, PENDING, RUNNING, SUCCEEDED, Change, Claim, FailureRow, NewRow, Row
from deadletter.rules import changes, machine

PICTURE = Path(__file__).parent / "images" / "states.svg"
NEW = "new"
FAILURE = FailureRow(attempt=1, error_type="ValueError", message="", fingerprint="")

# What a task can meet. The rest are verbs of rows that are no tasks (guards, pauses, operations, a monitor's book).
VERBS: dict[str, Callable[[Row], Change]] = {
    "start": lambda row: changes.start(row, "op"),
    "extend": lambda row: changes.extend(row, "op", 1),
    "outlive its timeout": lambda row: changes.outlive(row, "op", FAILURE),
    "shelve": lambda row: changes.shelve(row, "op"),
    "succeed": lambda row: changes.succeed(row, "op", 1),
    "try again": lambda row: changes.try_again(row, "op", FAILURE, 1),
    "postpone": lambda row: changes.postpone(row, "op", 1),
    "release": lambda row: changes.release(row, "op"),
    "yield its thread": lambda row: changes.yield_thread(row, "op", 1),
    "lapse": lambda row: changes.lapse(row, "op", on_uncertain="retry", max_lease_losses=3),
    "worker lost": lambda row: changes.lapse(row, "op", on_uncertain="dead", max_lease_losses=3),
    "die": lambda row: changes.die(row, "op", Reason.PERMANENT, FAILURE, 1),
    "quarantine": lambda row: changes.quarantine(row, "op", "", 1),
    "expire": lambda row: changes.expire(row, "op"),
    "discard": lambda row: changes.discard(row, "op", 1, ""),
    "cancel": lambda row: changes.cancel(row, "op", 1),
    "purge": lambda row: changes.purge(row, "op", 1),
    "erase": lambda row: changes.erase(row, "op", 1),
    "replay": lambda row: changes.replay(row, "op"),
}
NO_TASK = {"abandon", "amend", "announce", "call_off", "complete", "go_on", "lift", "note", "put_back", "take_over"}

BOXES = {  # state: centre
    NEW: (70, 200),
    PENDING: (270, 200),
    RUNNING: (570, 200),
    SUCCEEDED: (850, 90),
    DEAD: (570, 440),
    GONE: (850, 440),
}
COLOURS = {
    NEW: "#6b7280",
    PENDING: "#2563a8",
    RUNNING: "#8a5a00",
    SUCCEEDED: "#1f7a4d",
    DEAD: "#b3343a",
    GONE: "#6b7280",
}
WORDS = {NEW: "", GONE: "gone"}
# (from, to): the arrow, and where its words begin, how they are aligned.
ARROWS: dict[tuple[str, str], tuple[str, tuple[int, int], str]] = {
    (NEW, PENDING): ("M 88 200 L 206 200", (147, 186), "middle"),
    (NEW, DEAD): ("M 70 218 C 70 400, 250 440, 506 440", (96, 440), "start"),
    (PENDING, RUNNING): ("M 330 184 L 506 184", (418, 170), "middle"),
    (RUNNING, PENDING): ("M 510 216 L 334 216", (448, 238), "middle"),
    (RUNNING, RUNNING): ("M 540 176 C 500 90, 640 90, 603 172", (570, 38), "middle"),
    (RUNNING, SUCCEEDED): ("M 632 188 L 796 114", (700, 132), "end"),
    (RUNNING, DEAD): ("M 570 224 L 570 412", (580, 290), "start"),
    (RUNNING, GONE): ("M 632 212 L 816 414", (716, 258), "start"),
    (PENDING, DEAD): ("M 290 224 C 330 330, 430 400, 508 428", (336, 392), "end"),
    (PENDING, GONE): ("M 250 224 C 230 580, 700 560, 826 466", (400, 560), "middle"),
    (DEAD, PENDING): ("M 536 416 C 470 370, 400 320, 322 226", (452, 336), "start"),
    (DEAD, GONE): ("M 634 440 L 788 440", (711, 410), "middle"),
    (SUCCEEDED, GONE): ("M 850 116 L 850 410", (860, 250), "start"),
}


def seen(state: str) -> Row:
    """A row of a state that has not ended its keep, claimed where it runs."""
    row = Row(id="t", type="t", priority=1, state=state, token="t", started=True)
    row.expires_ms = 0 if state == PENDING else None
    row.lease_ms = 0
    return row


def moves() -> Iterator[tuple[str, str, str]]:
    """(from, to, verb), as the machine does it."""
    journal = machine.Journal()
    for state, verb in ((PENDING, "enqueue"), (DEAD, "capture, import")):
        yield NEW, machine.build(NewRow(id="t", type="t", state=state), 1, journal).state, verb
    row = seen(PENDING)
    machine.take(row, Claim(op="op"), 0, 1, journal)
    yield PENDING, row.state, "claim"
    for verb, make in VERBS.items():
        for state in (PENDING, RUNNING, SUCCEEDED, DEAD):
            row, change = seen(state), make(seen(state))
            if change.was == state and machine.apply(row, change, 1, journal) == "done":
                yield state, row.state, verb
    for state in (SUCCEEDED, DEAD):
        row = seen(state)
        row.keep_until_ms = 1
        if machine.forgotten(row, 1):
            yield state, GONE, "past its keep"


def lines(verbs: list[str], at: tuple[int, int], anchor: str) -> Iterator[str]:
    """The words of an arrow, at most two a line where it runs level."""
    step = 2 if anchor == "middle" else 1
    parts = [", ".join(verbs[n : n + step]) for n in range(0, len(verbs), step)]
    for n, part in enumerate(parts):
        yield f'<text x="{at[0]}" y="{at[1] + 17 * n}" text-anchor="{anchor}">{escape(part)}</text>'


def drawn() -> str:
    """The picture."""
    verbs: dict[tuple[str, str], list[str]] = defaultdict(list)
    for start, end, verb in moves():
        verbs[start, end].append(verb)
    unplaced = verbs.keys() ^ ARROWS.keys()
    if unplaced:
        raise SystemExit(f"docs/states.py: give these arrows a place, or take it away: {sorted(unplaced)}")
    told = "; ".join(f"{start} to {end}: {', '.join(names)}" for (start, end), names in verbs.items())
    out = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 970 600" role="img" font-family="sans-serif" font-size="14">',
        f"<title>The states of a task</title><desc>{escape(told)}</desc>",
        '<defs><marker id="head" viewBox="0 0 10 10" refX="8" refY="5" markerWidth="8" markerHeight="8" orient="auto">',
        '<path d="M 0 0 L 10 5 L 0 10 z" fill="#808080"/></marker></defs>',
        '<g fill="none" stroke="#808080" stroke-width="1.6" marker-end="url(#head)">',
        *(f'<path d="{ARROWS[pair][0]}"/>' for pair in verbs),
        "</g>",
        '<g fill="#7a7a7a" font-weight="600">',
        *(line for pair, names in verbs.items() for line in lines(names, *ARROWS[pair][1:])),
        "</g>",
    ]
    for state, (x, y) in BOXES.items():
        if state == NEW:
            out.append(f'<circle cx="{x}" cy="{y}" r="14" fill="{COLOURS[state]}"/>')
            continue
        out += [
            f'<rect x="{x - 60}" y="{y - 24}" width="120" height="48" rx="10" fill="{COLOURS[state]}"/>',
            f'<text x="{x}" y="{y + 5}" text-anchor="middle" fill="#fff" font-weight="700">{WORDS.get(state, state)}</text>',
        ]
    return "\n".join([*out, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(drawn())
    sys.stdout.write(f"{PICTURE}\n")
