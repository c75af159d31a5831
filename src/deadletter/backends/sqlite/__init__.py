"""Tasks in one SQLite file, shared by any number of processes on one machine."""

from __future__ import annotations

from .backend import SQLiteBackend

__all__ = ["SQLiteBackend"]
