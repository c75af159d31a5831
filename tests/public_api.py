"""What a release may not take away: the names that users import, compared with an earlier state of the source.

    python -m tests.public_api [REF]

REF is a tag or commit (default: the last tag; before the first one, the last commit). Exits with 1 where something that a
user can have written would no longer work. Names that no public module hands out are ours to change.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import griffe

PUBLIC = (
    "deadletter",
    "deadletter.adapters.breakers",
    "deadletter.adapters.lifespan",
    "deadletter.adapters.logs",
    "deadletter.adapters.tracing",
    "deadletter.alerts",
    "deadletter.backends.memory",
    "deadletter.backends.redis",
    "deadletter.backends.sqlite",
    "deadletter.http",
    "deadletter.interfaces",
    "deadletter.metrics",
    "deadletter.retry",
    "deadletter.testing",
)
SOURCE = Path(__file__).parents[1] / "src"


def loaded(source: Path) -> griffe.Object:
    return _whole(griffe.GriffeLoader(search_paths=[source]))


def loaded_at(ref: str) -> griffe.Object:
    found = griffe.load_git("deadletter", ref=ref, repo=SOURCE.parent, search_paths=["src"], resolve_aliases=True)
    assert isinstance(found, griffe.Object)
    return found


def _whole(loader: griffe.GriffeLoader) -> griffe.Object:
    found = loader.load("deadletter")
    loader.resolve_aliases(implicit=True)
    assert isinstance(found, griffe.Object)
    return found


def handed_out(package: griffe.Object) -> set[str]:
    """Where the names that public modules hand out are defined."""
    found: set[str] = set()
    for name in PUBLIC:
        module: Any = package if name == "deadletter" else package[name.removeprefix("deadletter.")]
        chosen = {str(each) for each in module.exports} if module.exports else set(module.members)
        for member in (module.members[each] for each in chosen if each in module.members and not each.startswith("_")):
            with suppress(griffe.AliasResolutionError):  # it names what is not there any more, or is a library's
                if not member.is_module:
                    found.add(member.final_target.path if member.is_alias else member.path)
    return {path for path in found if path.startswith("deadletter.")}


def breaks(old: griffe.Object, new: griffe.Object) -> Iterator[str]:
    """Each breaking change of what users can name, in one line."""
    public = handed_out(old)
    gone = public - handed_out(new)
    told: set[str] = set()
    for found in griffe.find_breaking_changes(old, new):
        path = found.obj.path
        parts = path.split(".")
        if any(".".join(parts[:n]) in public for n in range(1, len(parts) + 1)) and not any(
            part.startswith("_") for part in parts
        ):
            told.add(path)
            yield " ".join(found.explain(griffe.ExplanationStyle.ONE_LINE).split())
    yield from (f"{path}: no public module hands it out any more" for path in sorted(gone - told))


def last_release() -> str:
    command = ["git", "describe", "--tags", "--abbrev=0"]
    done = subprocess.run(command, cwd=SOURCE.parent, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "HEAD"


def main(arguments: list[str]) -> int:
    ref = arguments[0] if arguments else last_release()
    found = list(breaks(loaded_at(ref), loaded(SOURCE)))
    print(*found, sep="\n", end="\n" if found else "")
    print(f"{len(found)} breaking changes since {ref}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
