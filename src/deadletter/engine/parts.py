"""What a DeadLetterQueue works with, brought when the first one is made: see ``queue._furnish``."""

from __future__ import annotations

import anyio

from ..interfaces import Backend, SystemClock
from ..model.query import Query
from ..model.row import GONE
from ..retry import as_policy
from ..rules.codec import JsonCodec, decode_task, record_from_row
from ..runtime.chance import Chance
from ..runtime.threads import Threads
from . import bulk, enqueueing, erasing, letters, pauses, process, reading, subscription
from .guard import RowIdempotencyStore
from .keeper import Keeper
from .lazy import adopt
from .options import make_options
from .registry import Registration, Registry, is_async
from .settler import Coalescer
from .solitude import Solitude
from .spooling import Spooler, open_spool
from .sweeper import sweep
from .sync import SyncQueue
from .worker import Worker

__all__ = [
    "GONE",
    "Backend",
    "Chance",
    "Coalescer",
    "JsonCodec",
    "Keeper",
    "Query",
    "Registration",
    "Registry",
    "RowIdempotencyStore",
    "Solitude",
    "Spooler",
    "SyncQueue",
    "SystemClock",
    "Threads",
    "Worker",
    "adopt",
    "anyio",
    "as_policy",
    "bulk",
    "decode_task",
    "enqueueing",
    "erasing",
    "is_async",
    "letters",
    "make_options",
    "open_spool",
    "pauses",
    "process",
    "reading",
    "record_from_row",
    "subscription",
    "sweep",
]
