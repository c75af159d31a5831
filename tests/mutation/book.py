"""What became of each mutant, kept beside the docs, and the page that shows it."""

from __future__ import annotations

from collections import Counter
from types import ModuleType
from typing import Any

import attrs

from ..proof import page
from .plugin import Verdict
from .rooms import ROOMS
from .schema import Mutant

FILE = "mutants.json"
JUDGED = "mutants-judged.json"  # key of a survivor → why it may live; the only part that is written by hand
NOTICED = ("killed", "hangs")
_EVERY = 50


class Book:
    """One room's part."""

    def __init__(self, room: str) -> None:
        self._room = room
        document = page.load(FILE) or {"rooms": {}}
        self._known: dict[str, Any] = document["rooms"].get(room, {}).get("mutants", {})
        self._planned: set[str] = set()
        self._began = page.now()
        self.fresh = 0

    def plan(self, mutants: list[Mutant]) -> None:
        """These are in the room now; what is known of others is forgotten, since their lines have changed."""
        self._planned = {mutant.key for mutant in mutants}
        self._known = {key: told for key, told in self._known.items() if key in self._planned}

    def knows(self, mutant: Mutant) -> bool:
        """Whether it was noticed."""
        return self._known.get(mutant.key, {}).get("word") in NOTICED

    def missed(self, mutant: Mutant) -> bool:
        """Whether it was tried, and nobody noticed."""
        return mutant.key in self._known and not self.knows(mutant)

    def enter(self, verdict: Verdict) -> None:
        """Write one down."""
        told = attrs.asdict(verdict.mutant)
        for name in ("key", "number", "late"):
            told.pop(name)
        self._known[verdict.mutant.key] = {"word": verdict.word, "by": verdict.by, **told}
        if verdict.word in NOTICED:  # of these the number counts, and who noticed
            self._known[verdict.mutant.key] = {"word": verdict.word, "by": verdict.by}
        self.fresh += 1
        if self.fresh % _EVERY == 0:
            self.save()

    def save(self) -> None:
        """Onto the disk; an interrupted run goes on from there."""
        document = page.load(FILE) or {"rooms": {}}
        words = Counter(told["word"] for told in self._known.values())
        done = sum(words.values())
        document["rooms"][self._room] = {
            "commit": page.commit(),
            "machine": page.machine(),
            "began": self._began,
            "ended": page.now(),
            "planned": len(self._planned),
            "done": done,
            "words": dict(sorted(words.items())),
            "score": round(sum(words[word] for word in NOTICED) / done, 4) if done else None,
            "mutants": dict(sorted(self._known.items())),
        }
        page.save(FILE, document)

    @staticmethod
    def write_page(pages: ModuleType) -> None:
        """The score of each room, and every survivor with the reason why it may live."""
        document = pages.load(FILE) or {"rooms": {}}
        judged: dict[str, str] = pages.load(JUDGED) or {}
        lines = pages.table(
            ("room", "mutants", "done", "noticed", "survived", "score", "goal", "commit", "from", "to"),
            (_scored(name, room) for name, room in document["rooms"].items()),
        )
        for name, room in document["rooms"].items():
            survivors = [(key, told) for key, told in room["mutants"].items() if told["word"] not in NOTICED]
            survivors.sort(key=lambda pair: (pair[1]["path"], pair[1]["line"]))
            if survivors:
                lines += [
                    "",
                    f"## {name}",
                    "",
                    *pages.table(_HEAD, (_row(key, told, judged) for key, told in survivors)),
                ]
        pages.write("mutants", lines, pages.FOLDER / "mutants.md")


_HEAD = ("key", "where", "was", "became", "why it lives")


def _scored(name: str, room: dict[str, Any]) -> tuple[object, ...]:
    noticed = sum(room["words"].get(word, 0) for word in NOTICED)
    return (
        *(name, room["planned"], _done(room), noticed, room["done"] - noticed, f"{room['score']:.1%}"),
        *(f"{ROOMS[name].goal:.0%}", room["commit"], room["began"], room["ended"]),
    )


def _done(room: dict[str, Any]) -> str:
    """How many were run; a part of a room is a sample, for they come in an order that a seed draws."""
    whole = room["done"] == room["planned"]
    return "all" if whole else f"{room['done']} of {room['planned']}, sampled by seed"


def _row(key: str, told: dict[str, Any], judged: dict[str, str]) -> tuple[object, ...]:
    place = f"{told['path'].removeprefix('src/deadletter/')} {told['where']}"
    return key, place, _code(told["was"]), _code(told["becomes"]), judged.get(key, "not judged yet")


def _code(text: str) -> str:
    text = " ".join(text.split())
    text = text if len(text) <= 70 else f"{text[:67]}..."
    return f"``{text}``" if "`" in text else f"`{text}`"
