"""The command line: ``deadletter COMMAND``.

Each group of commands is a file with plain functions; ``app`` lists them. A command answers its exit code: 0 done, 1
unhealthy or partly failed, 2 bad use or unreachable.
"""

from __future__ import annotations

import cyclopts  # noqa: F401 - at the top, so that a missing extra shows on import

from .exits import run


def main() -> int:
    """Run the command that ``sys.argv`` names; answer its exit code."""
    return run()


__all__ = ["main"]
