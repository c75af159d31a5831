r"""Where a queue lies in Redis: every key of a shard begins with ``dl:{<queue>:<shard>}:``, so that it has one slot.

After the prefix:

===================== ====== ===================================================================
``meta``              HASH   format, seq of the last event, shards (shard 0), waited (written before each wait for
                             replicas); always ``KEYS[1]`` of a script
``t:<id>``            STRING a record: a row's small fields, in order, ``\x1f`` between them; empty is None, 0 or false;
                             then ``\x1e\x1e`` and the encoded task, where that has at most 512 bytes
``p:<id>``            STRING a longer encoded task; both are opaque to Lua
``f:<id>``            LIST   its last 20 failures: trace name, time, the rest as JSON
``k:<key>``           STRING the id that an idempotency key is bound to
``due:<rank>:<type>`` ZSET   pending ids by due time; ``lost:…`` those of them with lease losses
``types:<rank>``      ZSET   types with pending rows by their earliest due time
``expires``           ZSET   pending ids by expiry
``lease``             ZSET   running ids by the end of their lease
``live``              ZSET   pending and running ids by creation
``done``              ZSET   succeeded ids by creation
``dead``              ZSET   letters by death; likewise ``dead:<rank>`` and ``dx:type:<type>``,
                             ``dx:reason:<reason>``, ``dx:fp:<fingerprint>``
``keep``              ZSET   ended ids by when they are forgotten
``tally``             HASH   ``<state> <rank> <length of reason> <reason><type>`` → rows
``causes``            HASH   letters by ``<fingerprint>\x1f<type>\x1f<reason>\x1f<release>``
``stats``             HASH   ``[counter, type, detail]`` → lifetime count
``events``            STREAM the last 10,000 or so events, ``<seq>-0``
``traces``, ``uses``  HASH   tracebacks by content, each once, and how many failures refer to it
``redacts``           HASH   lists of hidden paths by content, each once
``claims``            HASH   op → ids of the last 1,000 claims (``claimed``: their order)
``never``             –      never exists: a script asks for it to learn whether the slot is moving
===================== ====== ===================================================================

``bell`` is a channel: something became due earlier than was known, or an event was stored.
"""

from __future__ import annotations

from urllib.parse import quote

BETWEEN = "\x1f"  # the fields of a record
ESCAPE = "\x1e"
BODY = b"\x1e\x1e"  # between the fields of a record and its body: nothing escaped holds it

RECORD = 2  # the format of a record, its first field; 1 had no body in it, and digests whole

FIELDS = (  # of a record, in order; all of Row but id, body and history. What a claim changes comes first.
    "format",
    "state",
    "token",
    "op",
    "lease_ms",
    "owner",
    "started",
    "alone",
    "keep_ms",
    "generation",
    "attempts",
    "lease_losses",
    "expires_ms",
    "has_failures",  # of Lua's own
    "postpones",
    "replays",
    "since_ms",
    "due_ms",
    "ended_ms",
    "keep_until_ms",
    "reason",
    "fingerprint",
    "error_type",
    "worker",
    "release",
    "priority",
    "type",
    "created_ms",
    "key",
    "digest",
    "redact",
)
NUMBER = {name: number for number, name in enumerate(FIELDS, 1)}  # as Lua counts


def prefix(queue: str, shard: int = 0) -> str:
    """What the keys of a queue's shard begin with; the queue's name is percent-encoded."""
    return f"dl:{{{quote(queue, safe='')}:{shard}}}:"


def escaped(text: str) -> str:
    """A text that may stand in a record or a key."""
    if BETWEEN not in text and ESCAPE not in text:
        return text
    return text.replace(ESCAPE, ESCAPE + "e").replace(BETWEEN, ESCAPE + "b")


def unescaped(text: str) -> str:
    """What was escaped."""
    return text.replace(ESCAPE + "b", BETWEEN).replace(ESCAPE + "e", ESCAPE) if ESCAPE in text else text
