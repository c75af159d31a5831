"""A disk that loses its power: what SQLite wrote, synced, made and deleted, and what of it is there afterwards.

The model: a write is safe once its file was synced; until then any part of it may be there, in any order, down to
sectors of 512 bytes. A file's name is made and deleted in order, and safe once its directory was synced, which SQLite
does at the first sync of a journal or log that it has made. What overwrites a range never spoils its neighbours
(SQLite's "powersafe overwrite", its default).
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import apsw
import attrs

SECTOR = 512
WAYS = ("dropped", "half kept", "any kept", "torn")  # what becomes of writes that were not synced


@attrs.frozen
class Write:
    """Bytes at an offset of a file; ``data`` None: the file was cut to this length."""

    file: int
    offset: int
    data: bytes | None


@attrs.frozen
class Sync:
    """Everything written to a file is safe; ``names`` too, where its directory was synced."""

    file: int | None
    names: bool


@attrs.frozen
class Name:
    """A name was given to a file, or taken away (None)."""

    name: str
    file: int | None


Happened = Write | Sync | Name


class Disk:
    """Everything that happened to the files of one folder, in order."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.happened: list[Happened] = []
        self._names: dict[str, int] = {}
        self._files = 0
        self._unsafe: set[int] = set()  # made by SQLite, and never synced: the first sync reaches the directory too

    def made(self, name: str, *, by_sqlite: bool) -> int:
        """A file was opened; it is new where its name was not there."""
        if name not in self._names:
            self._files += 1
            self._names[name] = self._files
            self.happened.append(Name(name, self._files))
            if by_sqlite:
                self._unsafe.add(self._files)
        return self._names[name]

    def wrote(self, file: int, offset: int, data: bytes | None) -> None:
        self.happened.append(Write(file, offset, data))

    def synced(self, file: int) -> None:
        self.happened.append(Sync(file, file in self._unsafe))
        self._unsafe.discard(file)

    def deleted(self, name: str, *, synced: bool) -> None:
        if self._names.pop(name, None) is not None:
            self.happened.append(Name(name, None))
        if synced:
            self.happened.append(Sync(None, names=True))


def cut(happened: list[Happened], way: str, chance: random.Random) -> dict[str, bytes]:
    """The files that are there when the power comes back."""
    files: dict[int, bytearray] = {}
    safe_names: dict[str, int | None] = {}
    writes: dict[int, list[Write]] = {}
    names: list[Name] = []
    for each in happened:
        if isinstance(each, Write):
            writes.setdefault(each.file, []).append(each)
        elif isinstance(each, Name):
            names.append(each)
        else:
            for write in writes.pop(each.file, []) if each.file is not None else []:
                _store(files, write)
            if each.names:
                safe_names |= {name.name: name.file for name in names}
                names = []
    for unsafe in writes.values():
        for write in _kept(unsafe, way, chance):
            _store(files, write)
    kept = {"dropped": 0, "half kept": len(names) // 2}.get(way, chance.randint(0, len(names)))
    safe_names |= {name.name: name.file for name in names[:kept]}
    return {name: bytes(files.get(file, b"")) for name, file in safe_names.items() if file is not None}


def _kept(unsafe: list[Write], way: str, chance: random.Random) -> list[Write]:
    if way == "dropped":
        return []
    if way == "half kept":
        return unsafe[: (len(unsafe) + 1) // 2]
    some = [write for write in unsafe if chance.random() < 0.6]
    return [part for write in some for part in _torn(write, chance)] if way == "torn" else some


def _torn(write: Write, chance: random.Random) -> list[Write]:
    """Some sectors of it."""
    if write.data is None:
        return [write]
    parts: list[Write] = []
    at, end = write.offset, write.offset + len(write.data)
    while at < end:
        until = min(end, (at // SECTOR + 1) * SECTOR)
        if chance.random() < 0.5:
            parts.append(Write(write.file, at, write.data[at - write.offset : until - write.offset]))
        at = until
    return parts


def _store(files: dict[int, bytearray], write: Write) -> None:
    file = files.setdefault(write.file, bytearray())
    if write.data is None:
        del file[write.offset :]
        file.extend(bytes(max(0, write.offset - len(file))))
        return
    file.extend(bytes(max(0, write.offset + len(write.data) - len(file))))
    file[write.offset : write.offset + len(write.data)] = write.data


class RecordingVFS(apsw.VFS):
    """SQLite's own file system, and a disk that writes down what it does."""

    def __init__(self, name: str, disk: Disk) -> None:
        super().__init__(name, "")
        self._disk = disk

    def xOpen(self, name: apsw.URIFilename | str | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - SQLite's word
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        assert path is not None, "SQLite wrote a nameless file: the model knows none"
        return RecordingFile(path, name, flags, self._disk)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        super().xDelete(filename, syncdir)
        self._disk.deleted(os.path.basename(filename), synced=bool(syncdir))


class RecordingFile(apsw.VFSFile):
    """One open file."""

    def __init__(self, path: str, name: apsw.URIFilename | str, flags: list[int], disk: Disk) -> None:
        super().__init__("", name, flags)
        self._disk = disk
        by_sqlite = not flags[0] & apsw.SQLITE_OPEN_MAIN_DB  # the database itself is made before SQLite opens it
        self._file = disk.made(os.path.basename(path), by_sqlite=by_sqlite)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        super().xWrite(data, offset)
        self._disk.wrote(self._file, offset, bytes(data))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        super().xTruncate(newsize)
        self._disk.wrote(self._file, newsize, None)

    def xSync(self, flags: int) -> None:  # noqa: N802
        super().xSync(flags)
        self._disk.synced(self._file)


class Connection:
    """As much of ``sqlite3.Connection`` as the backend asks for, over apsw and a recording file system."""

    def __init__(self, target: str, vfs: str) -> None:
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_URI
        self._real = apsw.Connection(target, flags=flags, vfs=vfs)
        self.execute = self._real.execute
        self.executemany = self._real.executemany
        self.close = self._real.close

    @property
    def in_transaction(self) -> bool:
        return bool(self._real.in_transaction)

    def create_function(self, name: str, arguments: int, function: object, *, deterministic: bool) -> None:
        self._real.create_scalar_function(name, function, arguments, deterministic=deterministic)  # type: ignore[arg-type]
