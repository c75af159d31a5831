"""Tasks in one SQLite file, shared by any number of processes on one machine."""

from __future__ import annotations

from .backend import SQLiteBackend
from .spool import SpoolFile

__all__ = ["SQLiteBackend", "SpoolFile"]
