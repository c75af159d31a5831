"""What a DeadLetterQueue works with, brought when the first one is made: see ``queue._furnish``."""

from __future__ import annotations

import anyio
import attrs

from ..interfaces import Backend, SystemClock
from ..model.query import Query
from ..model.row import BATCH, DEAD, GONE, Inserted, NewRow
from ..retry import as_policy
from ..rules.codec import JsonCodec, decode_task, digest, encode_task, key_hash, record_from_row
from ..rules.redaction import refuse_redacted
from ..runtime.chance import Chance, is_new_id
from ..runtime.threads import Threads
from . import bulk, letters, pauses, process, reading, subscription
from .guard import RowIdempotencyStore
from .keeper import Keeper
from .lazy import adopt
from .options import make_options
from .registry import Registration, Registry, is_async
from .settler import Coalescer
from .spooling import Spooler, open_spool
from .sweeper import sweep
from .sync import SyncQueue
from .watching import added_metadata
from .worker import Worker

__all__ = [
    "BATCH",
    "DEAD",
    "GONE",
    "Backend",
    "Chance",
    "Coalescer",
    "Inserted",
    "JsonCodec",
    "Keeper",
    "NewRow",
    "Query",
    "Registration",
    "Registry",
    "RowIdempotencyStore",
    "Spooler",
    "SyncQueue",
    "SystemClock",
    "Threads",
    "Worker",
    "added_metadata",
    "adopt",
    "anyio",
    "as_policy",
    "attrs",
    "bulk",
    "decode_task",
    "digest",
    "encode_task",
    "is_async",
    "is_new_id",
    "key_hash",
    "letters",
    "make_options",
    "open_spool",
    "pauses",
    "process",
    "reading",
    "record_from_row",
    "refuse_redacted",
    "subscription",
    "sweep",
]
