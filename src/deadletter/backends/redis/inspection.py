"""What a server says of itself: too old, forgetful, evicting; for ``open`` and for ``deadletter doctor``."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from ...model.errors import BackendError, BackendUnavailable, InvalidSetting
from ...model.row import Finding

if TYPE_CHECKING:
    from .client import Connections

OLDEST = (7, 0)
WAITAOF = (7, 2)
_TIERS = {
    "always": "AOF, appendfsync always: survives kill -9 and power loss of this node",
    "everysec": "AOF, appendfsync everysec: survives kill -9; power loss may take the last second",
    "no": "AOF, appendfsync no: survives kill -9; power loss may take what the system had not written",
    "": "AOF; how often it is flushed cannot be asked here",
}
_NONE = "no AOF: nothing survives a restart of the server but what its last snapshot has"

Command = Callable[..., Awaitable[Any]]


@attrs.frozen(kw_only=True)
class Facts:
    """What was found out.

    Attributes:
        name: ``redis``, ``valkey`` or another that speaks like them.
        version: as it says; empty where it does not.
        aof: whether it writes an append-only file; None where it does not say.
        fsync: ``always``, ``everysec``, ``no``; empty where it may not be asked.
        eviction: the maxmemory policy; empty where it does not say.
        replicas: that are connected.
        role: ``master`` or ``slave``.
    """

    name: str = "redis"
    version: str = ""
    aof: bool | None = None
    fsync: str = ""
    eviction: str = ""
    replicas: int = 0
    role: str = ""

    @property
    def numbers(self) -> tuple[int, ...]:
        """The version, to compare; what answers no INFO counts as new."""
        return tuple(int(part) for part in re.findall(r"\d+", self.version)[:3]) or (99,)

    @property
    def durability(self) -> str:
        """The tier, in words."""
        if self.aof is None:
            return "unknown: the server answers no INFO"
        return _TIERS.get(self.fsync, _TIERS[""]) if self.aof else _NONE


async def ask(command: Command) -> Facts:
    """Ask the server; what it refuses to tell is left empty (managed servers forbid CONFIG)."""
    try:
        told = _parsed(await command("INFO", "everything"))
    except BackendUnavailable:
        raise
    except BackendError:  # a stand-in that knows no INFO
        return Facts()
    fsync = ""
    if told.get("aof_enabled") == "1":
        try:
            fsync = _second(await command("CONFIG", "GET", "appendfsync"))
        except BackendError:
            fsync = ""
    valkey = told.get("valkey_version", "")
    return Facts(
        name="valkey" if valkey else told.get("server_name", "redis"),
        version=valkey or told.get("redis_version", ""),
        aof=told.get("aof_enabled") == "1" if "aof_enabled" in told else None,
        fsync=fsync,
        eviction=told.get("maxmemory_policy", ""),
        replicas=int(told.get("connected_slaves", "0")),
        role=told.get("role", ""),
    )


async def ask_all(connections: Connections) -> tuple[dict[str, Facts], list[Finding]]:
    """Ask every server that takes writes, and tell which of them cannot be asked.

    Raises:
        BackendUnavailable: none of them can.
    """
    facts: dict[str, Facts] = {}
    silent: list[Finding] = []
    problem: BackendUnavailable | None = None
    for name, node in (await connections.primaries()).items():
        try:
            facts[name] = await ask(node.command)
        except BackendUnavailable as error:
            problem = error
            silent.append(Finding(level="error", text=str(error)))
    if not facts:
        raise problem or connections.away("no node serves any slot")
    return facts, silent


def findings_of(nodes: Mapping[str, Facts], *, durability: str | None) -> list[Finding]:
    """What an operator should know of all of them; where they differ it names the node."""
    told = {name: findings(facts, durability=durability) for name, facts in nodes.items()}
    who: dict[tuple[str, str], list[str]] = {}
    for name, found in told.items():
        for finding in found:
            who.setdefault((finding.level, finding.text), []).append(name)
    return [
        Finding(level=level, text=text if len(names) == len(nodes) else f"{', '.join(names)}: {text}")
        for (level, text), names in who.items()
    ]


def _parsed(info: Any) -> Mapping[str, str]:
    if isinstance(info, Mapping):  # redis-py reads INFO for us
        return {str(name): str(value) for name, value in info.items()}
    lines = bytes(info).decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))


def _second(answer: Any) -> str:
    pairs = list(answer.items()) if isinstance(answer, Mapping) else [answer[:2]]
    value = pairs[0][1] if pairs and len(pairs[0]) > 1 else b""
    return value.decode() if isinstance(value, bytes) else str(value)


def refuse(facts: Facts, url: str, *, allow_eviction: bool, durability: str | None) -> None:
    """Refuse a server that would lose tasks or cannot run the scripts.

    Raises:
        InvalidSetting: says which rule, and what to do.
    """
    if facts.numbers < OLDEST:
        raise InvalidSetting(
            "backend",
            f"{url} is {facts.name} {facts.version}, too old for our scripts; use Redis 7.0 or newer, or Valkey",
        )
    if facts.eviction.startswith("allkeys-") and not allow_eviction:
        raise InvalidSetting(
            "backend",
            f"{url} has maxmemory-policy {facts.eviction}, which deletes tasks when memory is short; set noeviction"
            " (or allow_eviction=1 where losing tasks is fine)",
        )
    if durability is not None and durability.startswith("waitaof") and facts.numbers < WAITAOF:
        raise InvalidSetting(
            "durability", f"{url} is {facts.name} {facts.version}, and WAITAOF came with 7.2; use wait:N there"
        )


def findings(facts: Facts, *, durability: str | None) -> list[Finding]:
    """What an operator should know."""
    found: list[Finding] = []
    if facts.aof is False:
        text = f"{_NONE}; set appendonly yes"
        found.append(Finding(level="warning", text=text))
    elif facts.fsync in ("everysec", "no"):
        found.append(Finding(level="note", text=_TIERS[facts.fsync]))
    if facts.eviction.startswith("allkeys-"):
        text = f"maxmemory-policy {facts.eviction} deletes tasks when memory is short; set noeviction"
        found.append(Finding(level="error", text=text))
    elif facts.eviction.startswith("volatile-"):
        text = (
            f"maxmemory-policy {facts.eviction}: our keys carry no expiry, so that it cannot take them; set noeviction"
        )
        found.append(Finding(level="warning", text=text))
    if facts.role == "slave":
        found.append(Finding(level="error", text="this node is a replica, which takes no writes"))
    if durability is not None and (needed := int(durability.partition(":")[2])) > facts.replicas:
        text = f"durability={durability} wants {needed} replicas, and {facts.replicas} are connected"
        found.append(Finding(level="error", text=text))
    return found


def tier_of(nodes: Mapping[str, Facts]) -> str:
    """The tier, by node where they differ."""
    tiers: dict[str, list[str]] = {}
    for name, facts in nodes.items():
        tiers.setdefault(facts.durability, []).append(name)
    if len(tiers) == 1:
        return next(iter(tiers))
    return "; ".join(f"{', '.join(names)}: {tier}" for tier, names in tiers.items())
