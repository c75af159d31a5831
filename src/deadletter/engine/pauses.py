"""Types that no worker claims: a pause is a row in a reserved queue, and each worker looks there on its own timer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import attrs
import orjson

from ..model.errors import BackendError, InvalidTask
from ..model.query import glob_match
from ..model.record import Pause
from ..model.row import BATCH, PENDING, Inserted, NewRow, Row, Scan, Verdict
from ..model.task import from_ms
from ..rules import changes
from ..rules.codec import key_hash
from ..rules.error_text import storable
from .presence import reserved

if TYPE_CHECKING:
    from .queue import DeadLetterQueue

log = logging.getLogger("deadletter.pauses")

EVERY = 0.8  # seconds between a worker's looks: with the look and the claim under way, a pause is there within one
_LONGEST_GLOB = 400  # a type of 200 stars, each escaped
_LONGEST_WHY = 500


async def pause(queue: DeadLetterQueue, types: str, why: str) -> Pause:
    """See DeadLetterQueue.pause."""
    glob, said = _glob(types), _why(why)
    where = reserved("pauses", queue.name)
    # A pending row without an expiry stays whatever time passes; the key makes two racing pauses of a glob one.
    new = NewRow(
        id=queue.chance.name(),
        type=glob,
        key=key_hash(queue.name, glob, "pause"),
        body=orjson.dumps({"why": said}),
    )
    while True:
        bound = (await queue.backend.insert(where, [new]))[0]
        row = (await queue.backend.load(where, [bound.id], history=0))[0]
        if row is None or row.state != PENDING:
            if bound.verdict is Inserted.STORED:  # and lifted in the same moment
                return Pause(types=glob, why=said, since=from_ms(bound.now_ms))
            continue
        # The same op whoever tells and however often: the event is stored once.
        await queue.backend.apply(where, [changes.announce(row, f"{row.id}.told", _seen(row).why)])
        return _seen(row)


async def resume(queue: DeadLetterQueue, types: str) -> list[Pause]:
    """See DeadLetterQueue.resume."""
    glob = _glob(types)
    where = reserved("pauses", queue.name)
    meant = [row for row in await _rows(queue) if row.type == glob or glob_match(glob, row.type)]
    lifted: list[Row] = []
    for at in range(0, len(meant), BATCH):
        step = meant[at : at + BATCH]
        batch = [changes.lift(row, queue.chance.name(), _seen(row).why) for row in step]
        verdicts = await queue.backend.apply(where, batch)
        done = (Verdict.DONE, Verdict.REPEATED)
        lifted += [row for row, verdict in zip(step, verdicts, strict=True) if verdict in done]
    return _told(lifted)


async def lift_one(queue: DeadLetterQueue, glob: str, mark: str) -> None:
    """Lift the pause of this very glob, if its reason begins with ``mark``; those that it covers stay."""
    rows = [row for row in await _rows(queue) if row.type == glob and _seen(row).why.startswith(mark)]
    if rows:
        lifts = [changes.lift(row, queue.chance.name(), _seen(row).why) for row in rows]
        await queue.backend.apply(reserved("pauses", queue.name), lifts)


async def paused(queue: DeadLetterQueue) -> list[Pause]:
    """See DeadLetterQueue.paused."""
    return _told(await _rows(queue))


class Pauses:
    """What one worker knows of them.

    It claims nothing before it could read them once. Afterwards the last that it read holds while the store is away.
    """

    def __init__(self, queue: DeadLetterQueue, changed: Callable[[], object]) -> None:
        self._queue = queue
        self._changed = changed
        self._globs: Sequence[str] | None = None
        self._away = False

    async def unpaused(self, types: list[str]) -> list[str]:
        """Those of the types that may be claimed; raises BackendError where no pause could be read yet."""
        if self._globs is None:
            await self.look()
        globs = self._globs
        return [type_ for type_ in types if not any(glob_match(glob, type_) for glob in globs)] if globs else types

    @property
    def globs(self) -> Sequence[str]:
        """Those that were read last."""
        return self._globs or ()

    async def look(self) -> None:
        """Read them; ``changed`` is called where they are others than before."""
        globs = sorted(row.type for row in await _rows(self._queue, body=False))
        if globs == self._globs:
            return
        if globs or self._globs:
            log.info("paused: %s", ", ".join(map(repr, globs)) or "nothing any more")
        self._globs = globs
        self._changed()

    async def keep(self) -> None:
        """Look on a timer until cancelled."""
        while True:
            await self._queue.clock.sleep(EVERY)
            try:
                await self.look()
                self._away = False
            except BackendError as error:
                if not self._away:
                    log.warning("cannot read what is paused, and go on by what was known: %s", error)
                self._away = True


async def _rows(queue: DeadLetterQueue, *, body: bool = True) -> list[Row]:
    rows: list[Row] = []
    scan = Scan(state=PENDING, history=0, body=body)
    while True:
        page = await queue.backend.scan(reserved("pauses", queue.name), scan)
        rows += page.rows
        if page.after is None:
            return rows
        scan = attrs.evolve(scan, after=page.after)


def _seen(row: Row) -> Pause:
    return Pause(types=row.type, why=orjson.loads(row.body or b"{}").get("why", ""), since=from_ms(row.created_ms))


def _told(rows: Sequence[Row]) -> list[Pause]:
    return sorted(map(_seen, rows), key=lambda pause: pause.types)


def _glob(types: object) -> str:
    if not isinstance(types, str):
        raise InvalidTask("types", f"{type(types).__name__} is no glob; give one a call, such as 'email.*'")
    if not 1 <= len(types) <= _LONGEST_GLOB or not types.isprintable():
        shown = repr(types if len(types) <= 80 else types[:77] + "...")
        raise InvalidTask("types", f"{shown} can match no type; give 1-{_LONGEST_GLOB} printable characters")
    return types


def _why(why: object) -> str:
    text = storable(" ".join(why.split())) if isinstance(why, str) else ""
    if not text:
        raise InvalidTask("why", f"{why!r:.80} says nothing; say why, for whoever finds the work waiting")
    return text if len(text) <= _LONGEST_WHY else text[: _LONGEST_WHY - 1] + "…"
