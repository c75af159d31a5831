"""Inputs that are kept: one file each, found by a fuzzer or written by hand, replayed in every run of the tests."""

from __future__ import annotations

import hashlib
from pathlib import Path

FOLDER = Path(__file__).parent / "corpus"


def kept(target: str) -> list[Path]:
    """The files of a target."""
    return sorted(path for path in (FOLDER / target).iterdir() if path.is_file())


def inputs(target: str) -> list[bytes]:
    """What they hold."""
    return [path.read_bytes() for path in kept(target)]


def keep(target: str, data: bytes, name: str = "found") -> Path:
    """Write an input down, under a name that tells it from any other."""
    path = FOLDER / target / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
