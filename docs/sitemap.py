"""Writes ``llms.txt``, the map of these pages for a language model: ``python docs/sitemap.py``; a test compares."""

from __future__ import annotations

import re
import sys
from pathlib import Path

DOCS = Path(__file__).parent
MAP = DOCS / "llms.txt"
TREE = re.compile(r"```\{toctree\}\n(.*?)```", re.DOTALL)
FENCED = re.compile(r"^ *```.*?^ *```$", re.DOTALL | re.MULTILINE)
HEAD = """# deadletter

> A Python library (3.11+, `pip install deadletter-sdk`) that never loses failed work: it stores a failing call, retries it
> on a schedule, keeps what cannot succeed as a dead letter with its story, tells people, and replays it.
> SQLite, Redis or Valkey; asyncio, trio, threads.

Imports: `from deadletter import DeadLetterQueue, Task, dead_lettered`. Delivery is at least once. `return False` or
`PermanentError` makes a letter at once, any other exception is retried, `Postpone` and `Discard` do neither. Examples with
`await` at the top run in `python -m asyncio`; every code block of these pages is run by the tests.
"""


def summary(page: Path) -> tuple[str, str]:
    """The page's heading, and the first sentence below it."""
    heading, _, body = page.read_text().partition("\n")
    prose = FENCED.sub("", body).split("\n\n")
    text = next(
        (part.strip() for part in prose if part.strip() and not part.strip().startswith(("|", "- ", "!", "#", "<"))), ""
    )
    plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", " ".join(text.split()))
    return heading.removeprefix("# "), re.split(r"(?<=[.?])\s(?=[A-Z])", plain)[0].rstrip(":")


def written() -> str:
    """The whole map, in the order of the site."""
    out = [HEAD]
    for tree in TREE.findall((DOCS / "index.md").read_text()):
        out.append(f"## {re.search(r':caption: (.*)', tree)[1]}\n")
        for name in re.findall(r"^[\w/-]+$", tree, re.MULTILINE):
            heading, first = summary(DOCS / f"{name}.md")
            out.append(f"- [{heading}]({name}.html)" + (f": {first}" if first else ""))
        out.append("")
    return "\n".join(out)


if __name__ == "__main__":
    MAP.write_text(written())
    sys.stdout.write(f"{MAP}\n")
