"""What ``deadletter doctor`` tells of an SQLite file."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from pathlib import Path
from sqlite3 import Connection

from ...model.row import Finding, Inspection
from .file import StoreFile

_LOW_DISK = 1 << 30
_NETWORK = {"9p", "afs", "ceph", "cifs", "fuse.sshfs", "glusterfs", "lustre", "nfs", "nfs4", "smb3", "smbfs", "vboxsf"}
_DURABILITY = {
    "FULL": "synchronous=FULL: survives kill -9 and power loss, on a local disk that keeps what it flushed",
    "EXTRA": "synchronous=EXTRA: survives kill -9 and power loss, on a local disk that keeps what it flushed",
    "NORMAL": "synchronous=NORMAL: survives kill -9; power loss may take the last commits",
}


def inspect(connection: Connection, file: StoreFile, now_ms: int) -> Inspection:
    """Look at the library, the file and its disk."""
    version: str = connection.execute("SELECT sqlite_version()").fetchone()[0]
    findings: list[Finding] = []
    if file.in_memory:
        findings.append(Finding(level="warning", text="memory: nothing survives this process; meant for tests"))
        durability = "none: memory only"
    else:
        durability = _DURABILITY[file.synchronous]
        findings += _of_library(version) + _of_file(file)
        if file.synchronous == "NORMAL":
            findings.append(Finding(level="warning", text="synchronous=NORMAL: power loss may take the last commits"))
    return Inspection(
        backend="sqlite",
        version=version,
        now_ms=now_ms,
        durability=durability,
        findings=findings,
        queues=[name for (name,) in connection.execute("SELECT name FROM dl_queues ORDER BY name").fetchall()],
    )


def resets_badly(version: tuple[int, ...]) -> bool:
    """Whether this SQLite has the WAL-reset fault (sqlite.org/wal.html#walresetbug).

    3.7.0 to 3.51.2, but for two backports.
    """
    if (3, 44, 6) <= version < (3, 45) or (3, 50, 7) <= version < (3, 51):
        return False
    return (3, 7, 0) <= version < (3, 51, 3)


def _of_library(version: str) -> list[Finding]:
    if not resets_badly(tuple(map(int, version.split(".")))):
        return []
    text = (
        f"SQLite {version} can, rarely, damage a file while two connections write its log back at once (fixed in 3.51.3)."
        " deadletter lets one at a time do so; let no other program open the file, or use a newer SQLite"
    )
    return [Finding(level="note", text=text)]


def _of_file(file: StoreFile) -> list[Finding]:
    findings: list[Finding] = []
    try:
        mode = stat.S_IMODE(os.stat(file.path).st_mode)
        free = shutil.disk_usage(os.path.dirname(file.path)).free
    except OSError as error:
        return [Finding(level="error", text=f"{file.path}: {error.strerror}")]
    if mode & 0o077 and os.name == "posix":
        text = f"{file.path} has mode {mode:04o}, so that others can read payloads; chmod 600 it"
        findings.append(Finding(level="warning", text=text))
    if free < _LOW_DISK:
        findings.append(Finding(level="warning", text=f"{free >> 20} MiB are free on the disk of {file.path}"))
    kind = _filesystem(file.path)
    if kind in _NETWORK:
        text = f"{file.path} is on a network file system ({kind}), where SQLite's locks do not hold; use a local disk"
        findings.append(Finding(level="error", text=text))
    return findings


def _filesystem(path: str) -> str | None:
    """The type of the file system, where /proc tells it."""
    if not sys.platform.startswith("linux"):
        return None
    best, kind = "", None
    try:
        mounts = Path("/proc/self/mounts").read_text("utf-8", "replace").splitlines()
    except OSError:
        return None
    for line in mounts:
        _, point, this, *_ = line.split(" ")
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, this
    return kind
