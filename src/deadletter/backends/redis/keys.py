"""Where a queue lies in Redis: every key of a shard begins with ``dl:{<queue>:<shard>}:``, so that it has one slot.

After the prefix:

===================== ====== ===================================================================
``meta``              HASH   format, seq of the last event; always ``KEYS[1]`` of a script
``t:<id>``            HASH   a row's small fields (below), without those that are None, 0 or false
``p:<id>``            STRING the encoded task, opaque to Lua
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

FIELDS = {  # of Row, in its order → their names in t:<id>
    "type": "ty",
    "priority": "pr",
    "state": "st",
    "token": "tk",
    "op": "op",
    "generation": "ge",
    "attempts": "at",
    "lease_losses": "ll",
    "postpones": "pp",
    "replays": "re",
    "started": "sd",
    "alone": "al",
    "created_ms": "cr",
    "since_ms": "si",
    "due_ms": "du",
    "ended_ms": "en",
    "expires_ms": "ex",
    "lease_ms": "le",
    "keep_until_ms": "ku",
    "keep_ms": "kp",
    "key": "ke",
    "digest": "di",
    "owner": "ow",
    "reason": "rs",
    "fingerprint": "fp",
    "error_type": "et",
    "worker": "wo",
    "release": "rl",
    "redact": "rd",
    "format": "fm",
}
NUMBER = {name: number for number, name in enumerate(FIELDS, 1)}  # as Lua counts


def prefix(queue: str, shard: int = 0) -> str:
    """What the keys of a queue's shard begin with; the queue's name is percent-encoded."""
    return f"dl:{{{quote(queue, safe='')}:{shard}}}:"
