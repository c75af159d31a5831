"""The command ``deadletter``, also as ``python -m deadletter``."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line and return its exit code; without the extra ``cli``, say in one line what to install."""
    try:
        from .cli import main as run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"cyclopts", "rich"}:
            raise
        from .model.errors import MissingExtra

        print(MissingExtra("cli", "the deadletter command"), file=sys.stderr)  # noqa: T201 - there is no cli to do it
        return 2
    return run()


if __name__ == "__main__":
    sys.exit(main())
