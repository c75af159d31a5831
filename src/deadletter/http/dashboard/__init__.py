"""The dashboard: pages rendered here, for people.

``pages`` renders templates, ``filters`` and ``forms`` read what a URL or a form says, ``assets`` hands out files. Each of
``overview``, ``letters``, ``letter``, ``bulk``, ``operations`` and ``workers`` is a room of pages; ``census`` and
``samples`` count what the first screen shows. Every page can be read without scripts, and every form posts without them.
"""

from __future__ import annotations

from ..site import Endpoint, Handler
from . import bulk, letter, letters, operations, workers
from .assets import asset
from .overview import Overview


def endpoints() -> list[Endpoint]:
    """The pages of one application."""
    overview = Overview()
    return [
        _page("/", overview.page, "The dashboard"),
        _page("/health", overview.health, "Its health line"),
        _page("/letters", letters.letters, "Letters that match"),
        _page("/letters/{id}", letter.letter, "One letter"),
        _form("/letters/{id}/retry", letter.retry, "Send a letter back"),
        _form("/letters/{id}/edit", letter.edit, "Send a letter back with an edit"),
        _form("/letters/{id}/cancel", letter.cancel, "Delete a pending task"),
        _page("/review", bulk.review, "What an action would touch"),
        _page("/operations", operations.operations, "Operations"),
        _form("/operations", bulk.order, "Begin an operation"),
        _page("/operations/{id}", operations.operation, "One operation"),
        _form("/operations/{id}/cancel", operations.call_off, "Call an operation off"),
        _page("/pauses", workers.pauses, "What is paused"),
        _form("/pauses", workers.pause, "Pause types"),
        _form("/pauses/resume", workers.resume, "Resume types"),
        _page("/workers", workers.workers, "Workers and types"),
        _page("/static/{name:path}", asset, "A file"),
    ]


def _page(path: str, handler: Handler, summary: str) -> Endpoint:
    return Endpoint(method="GET", path=path, handler=handler, summary=summary, url=None, answer="text/html", told=False)


def _form(path: str, handler: Handler, summary: str) -> Endpoint:
    return Endpoint(
        method="POST", path=path, handler=handler, summary=summary, url=None, answer="text/html", told=False
    )
