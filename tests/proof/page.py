"""The page of figures: tables in docs/explanation/ that commands write, between marks, from the JSON beside them."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "explanation"
PAGE = FOLDER / "proof.md"


def now() -> str:
    """The time, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def commit() -> str:
    """What was measured; ``+`` where the library or its tests differ from the commit."""
    return (_git("rev-parse", "--short=12", "HEAD") or "unknown") + _changed()


def source() -> str:
    """What the library and its tests are: equal as long as a batch would do the same, whatever else is committed."""
    return " ".join(_git("rev-parse", "HEAD:src", "HEAD:tests").split()) + _changed()


def _changed() -> str:
    return "+" if _git("status", "--porcelain", "--", "src", "tests") else ""


def _git(*arguments: str) -> str:
    """The answer of git; empty where this is no clone."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def machine() -> str:
    """What it was measured on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{platform.system()} {platform.machine()}, {cores} cores, Python {platform.python_version()}"


def load(name: str) -> Any:
    """A JSON of the folder; None where it is not there."""
    path = FOLDER / name
    return json.loads(path.read_text("utf-8")) if path.exists() else None


def save(name: str, document: Any) -> None:
    """Write a JSON of the folder."""
    (FOLDER / name).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8")


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines]


def write(block: str, lines: Iterable[str], page: Path = PAGE) -> None:
    """Put lines between ``<!-- block -->`` and ``<!-- /block -->``."""
    text = page.read_text("utf-8")
    start, end = f"<!-- {block} -->", f"<!-- /{block} -->"
    before, found, rest = text.partition(start)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise LookupError(f"{page} has no place for {block!r}: write {start} and {end} where it belongs")
    page.write_text(f"{before}{start}\n{''.join(line + chr(10) for line in lines)}{end}{after}", "utf-8")
