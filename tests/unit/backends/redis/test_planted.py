"""A test of the test: spoil one line of Lua, and random batches must notice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from deadletter.backends.redis import scripts

from .test_lua_is_the_machine import agree

SEEDS = 300
PLANTED = {  # file, the line, what becomes of it
    "no token in the fence": ("apply", "(token ~= '' and mine ~= token)", "false"),
    "no generation in the fence": ("apply", "num(row[GE]) ~= tonumber(generation)", "false"),
    "no repeat by op": ("apply", "row[OP] == op and op ~= ''", "false"),
    "no lapsed check": ("apply", "not limit or limit > now", "false"),
    "a lapse that forgets its token": ("apply", "if kind[LAPSED] ~= '1' then", "if true then"),
    "an expiry that stays": ("apply", "row[EX] = '' -- \"expired\"", '-- "expired"'),
    "a key that stays bound": ("apply", "deleted[#deleted + 1] = prefix .. 'k:' .. row[KE]", "local _ = nil"),
    "a trace dropped too early": ("journal", "left and left <= 0", "left and left <= 1"),
    "a tally that only grows": ("journal", "n ~= 0 and redis", "n > 0 and redis"),
    "a suspect that is not found": ("journal", "row[LL] ~= '' and num(row[LL]) > 0", "false"),
    "a claim that is not repeated": ("claim", "if before_that then", "if false then"),
    "a claim of what is expired": ("claim", "expires and expires <= now and 'expired'", "false"),
    "a repeat that finds no room": ("insert", "ids[found.id] = false", "local _ = nil"),
    "a conflict that stores": ("insert", "if not same then", "if false then"),
    "a cursor one too far": ("scan", "low = middle + 1", "low = middle + 2"),
    "a success under another's token": ("success", "held ~= token", "false"),
    "a success that leaves nothing": ("success", "place('live', id, false)", "local _ = nil"),
    "a success whose body stays beside it": ("success", "bodies[id] = false", "local _ = nil"),
    "a cause that is never left": ("journal", "(causes[cause] or 0) + n", "(causes[cause] or 0) + 1"),
    "a lease that lapses late": ("sweep", "num(row[field]) <= now", "num(row[field]) < now - 50"),
}


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    def plant(file: str, line: str, instead: str) -> None:
        read = scripts._read

        def spoilt(name: str) -> str:
            text = read(name)
            if name != file:
                return text
            assert line in text
            return text.replace(line, instead, 1)

        monkeypatch.setattr(scripts, "_read", spoilt)
        scripts.load_script.cache_clear()

    yield plant
    monkeypatch.undo()
    scripts.load_script.cache_clear()


@pytest.mark.full
@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_noticed(bug: str, spoil: Any) -> None:
    spoil(*PLANTED[bug])

    with pytest.raises(BaseException):  # noqa: B017, PT012 - a difference, or Redis' own refusal
        for seed in range(SEEDS):
            agree(seed)
