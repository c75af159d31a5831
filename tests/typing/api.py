"""The public API as users type it. mypy and pyright check this file; nothing runs it."""

from __future__ import annotations
