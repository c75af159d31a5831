"""A queue on a real Redis, whose scripts note each transition themselves, and a recount of every key of it."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from deadletter.backends.redis.keys import BODY, FIELDS, prefix, unescaped

from ..redis_servers import Server
from .opening import AUDITED, audited_scripts
from .store import Store

_SNAPSHOT = """
local read = {
  string = function(key) return redis.call('GET', key) end,
  hash = function(key) return redis.call('HGETALL', key) end,
  list = function(key) return redis.call('LRANGE', key, 0, -1) end,
  zset = function(key) return redis.call('ZRANGE', key, 0, -1, 'WITHSCORES') end,
  stream = function(key) return redis.call('XRANGE', key, '-', '+') end,
}
local found = {}
for _, key in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do
  local kind = redis.call('TYPE', key).ok
  found[#found + 1] = {string.sub(key, #ARGV[1] + 1), kind, redis.call('PTTL', key), read[kind](key)}
end
return found
"""
_WAITS = ("due:", "lost:")
_SETS = (*_WAITS, "types:", "expires", "lease", "live", "done", "dead", "dx:", "keep")


def _pairs(flat: Iterable[Any]) -> dict[str, str]:
    at = iter(flat)
    return {_text(key): _text(value) for key, value in zip(at, at, strict=True)}


def _text(value: bytes) -> str:
    return value.decode()


class Snapshot:
    """All keys of a queue, read in one step."""

    def __init__(self, found: Iterable[Any]) -> None:
        self.ttls: dict[str, int] = {}
        self.values: dict[str, dict[str, Any]] = defaultdict(dict)
        for key, kind, ttl, value in found:
            self.values[_text(kind)][_text(key)] = value
            self.ttls[_text(key)] = ttl
        self.with_body = {key[2:] for key, value in self.values["string"].items() if key[:2] == "t:" and BODY in value}
        self.records = {
            key[2:]: dict(zip(FIELDS, map(unescaped, _text(record.partition(BODY)[0]).split("\x1f")), strict=False))
            for key, record in self.values["string"].items()
            if key.startswith("t:")
        }

    def differences(self) -> Iterator[str]:
        """What differs from the records: indexes, tally, bodies, failures, keys; and whatever would expire (I12)."""
        for key, ttl in self.ttls.items():
            if ttl != -1:
                yield f"I12: {key} lives for {ttl} ms"
        yield from self._indexes()
        yield from self._tally()
        yield from self._beside()
        yield from self._tracebacks()

    def _indexes(self) -> Iterator[str]:
        expected: dict[str, dict[str, float]] = defaultdict(dict)
        for id_, record in self.records.items():
            for name, time in _places(record):
                expected[name][id_] = float(time)
        for name in [name for name in expected if name.startswith("due:")]:
            rank, type_ = name[4], name[6:]
            expected[f"types:{rank}"][type_] = min(expected[name].values())
        for name, flat in self.values["zset"].items():
            if name.startswith(_SETS):
                found = {id_: float(score) for id_, score in _pairs(flat).items()}
                if found != expected.get(name, {}):
                    yield f"{name} holds {_short(found, expected.get(name, {}))} that the records do not say"
        for name in expected.keys() - self.values["zset"].keys():
            yield f"{name} is missing: {expected[name]}"

    def _tally(self) -> Iterator[str]:
        recount = Counter(
            f"{record['state']} {record['priority']} {len(record['reason'])} {record['reason']}{record['type']}"
            for record in self.records.values()
            if record["state"] != "gone"
        )
        told = {field: int(n) for field, n in _pairs(self.values["hash"].get("tally", ())).items()}
        if told != recount:
            yield f"the tally says {told}, a recount {dict(recount)}"
        causes = Counter(
            "\x1f".join(record[name] for name in ("fingerprint", "type", "reason", "release"))
            for record in self.records.values()
            if record["state"] == "dead"
        )
        told = {cause: int(n) for cause, n in _pairs(self.values["hash"].get("causes", ())).items()}
        if told != causes:
            yield f"the causes are {told}, a recount {dict(causes)}"

    def _beside(self) -> Iterator[str]:
        """Bodies, failures and idempotency keys are there where a record has them, and nowhere else."""
        strings, lists = self.values["string"], self.values["list"]
        for id_, record in self.records.items():
            bodies = (id_ in self.with_body) + (f"p:{id_}" in strings)
            if bodies > 1 or (record["state"] in ("pending", "running", "dead") and not bodies):
                yield f"{id_} is {record['state']} and has {bodies} bodies"
            if bool(record["has_failures"]) != (f"f:{id_}" in lists):
                yield f"{id_} has failures or not: {record['has_failures']!r}, {f'f:{id_}' in lists}"
            if record["key"] and strings.get(f"k:{record['key']}") != id_.encode():
                yield f"the key of {id_} is bound to {strings.get('k:' + record['key'])}"
        for name, value in strings.items():
            kind, _, rest = name.partition(":")
            if kind in ("p", "f") and rest not in self.records:
                yield f"{name} belongs to nobody"
            if kind == "k" and self.records.get(_text(value), {}).get("key") != rest:
                yield f"{name} is bound to {value!r}, which does not know it"

    def _tracebacks(self) -> Iterator[str]:
        uses: Counter[str] = Counter()
        for name, entries in self.values["list"].items():
            if name.startswith("f:"):
                uses.update(entry[:32].decode() for entry in entries if entry[:1] != b"-")
        told = {trace: int(n) for trace, n in _pairs(self.values["hash"].get("uses", ())).items()}
        kept = set(_pairs(self.values["hash"].get("traces", ())))
        if told != uses or kept != set(uses):
            yield f"tracebacks are used {dict(uses)}, counted {told}, kept {sorted(kept)}"


def _places(record: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Where journal.lua's ``index`` puts a record, said once more."""
    state, line = record["state"], f"{record['priority']}:{record['type']}"
    if state == "pending":
        due_ms = record["due_ms"] or record["created_ms"]
        yield f"due:{line}", due_ms
        yield "live", record["created_ms"]
        if int(record["lease_losses"] or 0) > 0:
            yield f"lost:{line}", due_ms
        if record["expires_ms"]:
            yield "expires", record["expires_ms"]
        return
    if state == "running":
        yield "lease", record["lease_ms"]
        yield "live", record["created_ms"]
        return
    if state == "dead":
        names = ["dead", f"dead:{record['priority']}", f"dx:type:{record['type']}"]
        names += [f"dx:reason:{record['reason']}"] if record["reason"] else []
        names += [f"dx:fp:{record['fingerprint']}"] if record["fingerprint"] else []
        yield from ((name, record["ended_ms"]) for name in names)
    if state == "succeeded":
        yield "done", record["created_ms"]
    if record["keep_until_ms"]:
        yield "keep", record["keep_until_ms"]


def _short(found: dict[str, float], expected: dict[str, float]) -> dict[str, Any]:
    differ = [id_ for id_ in sorted({*found, *expected}) if found.get(id_) != expected.get(id_)]
    return {id_: (found.get(id_), expected.get(id_)) for id_ in differ[:5]}


def snapshot_of(client: Any, queue_prefix: str) -> Snapshot:
    """Every key of a queue's shard, read in one step."""
    return Snapshot(client.execute_command("EVAL", _SNAPSHOT, 0, queue_prefix))


class RedisStore(Store):
    """One database of a server of our own."""

    over_a_wire = True

    def __init__(self, folder: Path, server: Server, *, url: str | None = None, database: str | None = None) -> None:
        self._auditing = audited_scripts()
        self._auditing.__enter__()
        self.server = server
        url = url or server.emptied()
        self._database = database or url.rpartition("=")[2]
        super().__init__(folder, url)
        self.prefix = prefix("default")
        self.dlq.sync.open()

    def close(self) -> None:
        super().close()
        self._auditing.__exit__(None, None, None)

    def ask(self, *command: Any) -> Any:
        """The answer to one command, on a connection of our own."""
        with self.server.client(db=int(self._database)) as client:
            return client.execute_command(*command)

    def snapshot(self) -> Snapshot:
        """Every key of the queue."""
        return Snapshot(self.ask("EVAL", _SNAPSHOT, 0, self.prefix))

    def rows(self, columns: str = "id, state") -> list[tuple[Any, ...]]:
        names = columns.split(", ")
        return [
            tuple(id_ if name == "id" else _value(name, record[name] or _like(name, record)) for name in names)
            for id_, record in self.snapshot().records.items()
        ]

    def audited(self) -> list[tuple[Any, ...]]:
        entries = [json.loads(entry) for entry in self.ask("LRANGE", f"{self.prefix}audit", 0, -1)]
        optional = {AUDITED.index(name) for name in ("was", "owner", "token")}
        return [tuple(None if at in optional and part == "" else part for at, part in enumerate(e)) for e in entries]

    def counters(self) -> dict[str, int]:
        counted: Counter[str] = Counter()
        for field, n in _pairs(self.snapshot().values["hash"].get("stats", ())).items():
            counted[json.loads(field)[0]] += int(n)
        return counted

    def events(self) -> dict[str, int]:
        stored = self.snapshot().values["stream"].get("events", ())
        return Counter(_pairs(fields)["kind"] for _, fields in stored)

    def differences(self) -> Iterator[str]:
        yield from self.snapshot().differences()


def _like(name: str, record: dict[str, str]) -> str:
    return record["created_ms"] if name in ("due_ms", "since_ms") else ""


def _value(name: str, text: str) -> Any:
    if name.endswith("_ms"):
        return int(text) if text else None
    if name in ("attempts", "lease_losses", "postpones", "replays", "generation", "priority"):
        return int(text or 0)
    return text or None
