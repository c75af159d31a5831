"""Opening the store under test in any process, with an audit of its transitions where the store has no triggers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from deadletter.backends.redis import scripts

AUDITED = ("id", "was", "became", "started", "owner", "token", "attempts", "losses", "replays")

_PLACE = "    redis.call('MSET', unpack(records))\n"
# As the trigger on SQLite's rows: each change of state or token, in the step that makes it.
_AUDIT = """\
    for at = 1, #records, 2 do
      local place = prefix .. 't:'
      if string.sub(records[at], 1, #place) == place then
        local was, new = redis.call('GET', records[at]), parse(records[at + 1])
        local old = was and parse(was)
        if not old or old[ST] ~= new[ST] or old[TK] ~= new[TK] then
          local function grown(field)
            return old and num(new[field]) - num(old[field]) or 0
          end
          redis.call('RPUSH', prefix .. 'audit', cjson.encode({string.sub(records[at], #place + 1), old and old[ST] or '',
            new[ST], old and num(old[SD]) or 0, old and old[OW] or '', old and new[TK] or '', grown(AT), grown(LL), grown(RE)}))
        end
      end
    end
"""


_FRESH_PLACE = "  redis.call('MSET', unpack(records))\n"
_FRESH_AUDIT = """\
  for at = 1, #records, 2 do
    local place = prefix .. 't:'
    if string.sub(records[at], 1, #place) == place then
      redis.call('RPUSH', prefix .. 'audit', cjson.encode({string.sub(records[at], #place + 1), '', 'pending', 0, '', '', 0, 0, 0}))
    end
  end
"""
_AUDITS = {"journal": (_PLACE, _AUDIT), "fresh": (_FRESH_PLACE, _FRESH_AUDIT)}


def path_of(url: str) -> Path:
    """SQLite's file."""
    return Path(url.removeprefix("sqlite:///"))


@contextmanager
def patched_scripts(read: Callable[[str], str]) -> Iterator[None]:
    """Read the Lua files so for a while."""
    real = scripts._read
    scripts._read = read
    scripts.load_script.cache_clear()
    try:
        yield
    finally:
        scripts._read = real
        scripts.load_script.cache_clear()


@contextmanager
def audited_scripts() -> Iterator[None]:
    """Let every script append what it changes to the list ``audit`` of its shard."""
    read = scripts._read

    def with_audit(name: str) -> str:
        text = read(name)
        place, audit = _AUDITS.get(name, ("", ""))
        if place and audit not in text:  # two stores may be open at once
            assert text.count(place) == 1, f"{name}.lua writes its records elsewhere now: put the audit there"
            text = text.replace(place, audit + place)
        return text

    with patched_scripts(with_audit):
        yield
