"""Exception → FailureRow: what a letter tells of an attempt that failed."""

from __future__ import annotations

import traceback
from collections.abc import Iterator

from ..model.row import FailureRow
from .error_text import cut, plain, type_name
from .fingerprint import known_fingerprint, text_fingerprint
from .frames import TEXT_LIMIT, trace
from .masking import Mask

_CHAIN = 20  # exceptions told of one failure, members of groups included
_NOTES = 20
_CAUSE = "\nThe above exception was the direct cause of the following exception:\n\n"
_CONTEXT = "\nDuring handling of the above exception, another exception occurred:\n\n"


def failure_row(
    error: BaseException,
    *,
    task_type: str,
    attempt: int,
    duration_ms: int | None,
    worker: str | None,
    release: str | None,
    mask: Mask | None = None,
) -> FailureRow:
    """Tell a failure: type, message (≤ 2,000 characters), traceback (≤ 16,000, both ends), fingerprint.

    It is told whole; only the fingerprint leaves out what ``mask`` hides.

    Never raises, whatever the exception's own methods do. Takes about 10 µs where the same frames have failed before.
    """
    said, name = plain(error), type_name(error)
    try:
        frames = trace(error.__traceback__)
        told = _traceback(error, said, frames.text)
        cause = known_fingerprint(task_type, error, name, said, frames, mask)
    except Exception as problem:  # a user's class may override anything; the failure itself is still told
        told = f"[the traceback cannot be rendered: {type_name(problem)}]\n{name}: {said}\n"
        cause = text_fingerprint(task_type, name, mask.text(said) if mask else said)
    return FailureRow(
        attempt=attempt,
        duration_ms=duration_ms,
        error_type=name,
        message=said,
        traceback=told,
        fingerprint=cause,
        worker=worker,
        release=release,
    )


def _traceback(error: BaseException, said: str, frames: str) -> str:
    """As Python renders it: causes, contexts, groups and notes, without frames of this package."""
    if error.__cause__ is None and error.__context__ is None and not isinstance(error, BaseExceptionGroup):
        text = _one(error, said, frames)
    else:
        text = "".join(_Story(error, said, frames).tell(error, 0))
    return cut(text, TEXT_LIMIT)


def _one(error: BaseException, said: str, frames: str, title: str = "Traceback") -> str:
    head = f"{title} (most recent call last):\n{frames}" if frames else ""
    return head + _last_lines(error, said)


def _last_lines(error: BaseException, said: str) -> str:
    if isinstance(error, SyntaxError):
        return plain("".join(traceback.format_exception_only(error)), TEXT_LIMIT)  # shows the source line
    name = type_name(error).removeprefix("__main__.")
    last = f"{name}: {said}\n" if said else f"{name}\n"
    notes = getattr(error, "__notes__", None)
    if isinstance(notes, list | tuple):
        last += "".join(f"{plain(note)}\n" for note in notes[:_NOTES])
    return last


class _Story:
    """One telling of a chain: tells nothing twice, and not for ever."""

    def __init__(self, error: BaseException, said: str, frames: str) -> None:
        self._last, self._said, self._frames = error, said, frames
        self._seen: set[int] = set()

    def tell(self, error: BaseException, depth: int) -> Iterator[str]:
        links = self._links(error)
        if links[-1][1]:
            yield _margin("[earlier exceptions are left out]\n", depth)
        for link, joint in reversed(links):
            if joint:
                yield _margin(joint, depth)
            read = link is not self._last
            said = plain(link) if read else self._said
            frames = trace(link.__traceback__).text if read else self._frames
            if isinstance(link, BaseExceptionGroup):
                yield from self._group(link, said, frames, depth)
            else:
                yield _margin(_one(link, said, frames), depth)

    def _links(self, error: BaseException) -> list[tuple[BaseException, str]]:
        """The chain from the last exception to the first, each with the words that join it to the one before."""
        links: list[tuple[BaseException, str]] = []
        link: BaseException | None = error
        while link is not None:
            self._seen.add(id(link))
            before, joint = None, ""
            if link.__cause__ is not None:
                before, joint = link.__cause__, _CAUSE
            elif link.__context__ is not None and not link.__suppress_context__:
                before, joint = link.__context__, _CONTEXT
            links.append((link, joint))
            link = before if len(self._seen) < _CHAIN and id(before) not in self._seen else None
        return links

    def _group(self, group: BaseExceptionGroup[BaseException], said: str, frames: str, depth: int) -> Iterator[str]:
        inner = max(depth, 1)
        corner = "+" if frames and not depth else "|"
        yield _margin(_one(group, said, frames, "Exception Group Traceback"), inner, corner)
        indent = "  " * inner
        for number, member in enumerate(group.exceptions, 1):
            lead = "+-" if number == 1 else "  "
            if len(self._seen) >= _CHAIN:
                yield f"{indent}{lead}+---------------- ... ----------------\n"
                yield _margin(f"and {len(group.exceptions) - number + 1} more exceptions\n", inner + 1)
                break
            yield f"{indent}{lead}+---------------- {number} ----------------\n"
            if id(member) in self._seen:
                yield _margin("[told above]\n", inner + 1)
            else:
                yield from self.tell(member, inner + 1)
        yield f"{indent}  +------------------------------------\n"


def _margin(text: str, depth: int, first: str = "|") -> str:
    if depth == 0:
        return text
    indent = "  " * depth
    lines = text.splitlines(keepends=True)
    return "".join(f"{indent}{first if number == 0 else '|'} {line}" for number, line in enumerate(lines))
