"""Bugs in the Lua of Redis: each must show beside memory, in random batches on a real server."""

from __future__ import annotations

from deadletter.backends.redis.shard import Shard

from .bug import Bug, Kind, Plant, line, lua


def _bug(name: str, kind: Kind, plant: Plant, *, by: str = "Redis beside memory") -> Bug:
    return Bug(name, kind, "Lua", by, plant, rare=True)


FENCES = [
    _bug("no token in the fence", "fence", lua("apply", ("(token ~= '' and mine ~= token)", "false"))),
    _bug("no generation in the fence", "fence", lua("apply", ("num(row[GE]) ~= tonumber(generation)", "false"))),
    _bug("no repeat by op", "op id", lua("apply", ("row[OP] == op and op ~= ''", "false"))),
    _bug("no lapsed check", "fence", lua("apply", ("not limit or limit > now", "false"))),
    _bug("no late settle", "fence", lua("apply", ("kind[LATE] == '1'", "false"))),
    _bug("a claim that is not repeated", "op id", lua("claim", ("if before_that then", "if false then"))),
    _bug(
        "a token that is given twice",
        "op id",
        lua("claim", ("running\\31' .. op .. '-'", "running\\31' .. owner .. '-'")),
    ),
    _bug("a claim of what is expired", "guard", lua("claim", ("expires and expires <= now and 'expired'", "false"))),
    _bug("a suspect that is not found", "guard", lua("journal", ("row[LL] ~= '' and num(row[LL]) > 0", "false"))),
    _bug(
        "a suspect that is not hidden",
        "guard",
        lua("claim", ("most_losses and num(losses) >= most_losses or false", "alone")),
    ),
    _bug("a repeat that finds no room", "guard", lua("insert", ("ids[found.id] = false", "local _ = nil"))),
]

KEYS = [
    _bug(
        "a key that stays bound",
        "key TTL",
        lua("apply", ("deleted[#deleted + 1] = prefix .. 'k:' .. row[KE]", "local _ = nil")),
    ),
    _bug(
        "a key that outlives its row",
        "key TTL",
        lua("journal", ("deleted[#deleted + 1] = prefix .. 'k:' .. row[KE]", "local _ = nil")),
    ),
    _bug(
        "a key that expires by itself",
        "key TTL",
        lua(
            "fresh",
            (
                "records[#records + 1], records[#records + 2] = prefix .. 'k:' .. ARGV[at + 2], id",
                "redis.call('SET', prefix .. 'k:' .. ARGV[at + 2], id, 'PX', 60000)",
            ),
        ),
    ),
    _bug("a keep that is over too early", "key TTL", lua("journal", ("until_ms <= now", "until_ms <= now + 500"))),
    _bug(
        "a keep that is counted from the creation",
        "key TTL",
        lua("apply", ("ms(now + tonumber(kind[KEEP]))", "ms(num(row[CR]) + tonumber(kind[KEEP]))")),
    ),
]

CLOCKS = [
    _bug("a lease that lapses late", "clock", lua("sweep", ("num(row[field]) <= now", "num(row[field]) < now - 50"))),
    _bug("a lease twice as long", "clock", lua("claim", ("ms(now + lease)", "ms(now + 2 * lease)"))),
    _bug(
        "the caller's clock for the server's",
        "clock",
        line(Shard, "_run", 'now = ""', "now = __import__('time').time_ns() // 1_000_000"),
        by="a caller whose clock is an hour off",
    ),
    _bug(
        "a clock that stands still within a second",
        "clock",
        lua("prelude", (" + math.floor(tonumber(time[2]) / 1000)", "")),
        by="a caller whose clock is an hour off",
    ),
]

ORDER = [
    _bug(
        "a state that is written before its indexes are left",
        "order",
        lua(
            "apply",
            ("      enter(row, -1)\n      index(", "      row[ST] = kind[TO]\n      enter(row, -1)\n      index("),
        ),
    ),
    _bug(
        "a line's head that is read before the line is written",
        "order",
        lua("journal", ("  finish_sets()\n  finish_lines()\n", "  finish_lines()\n  finish_sets()\n")),
    ),
    _bug("a conflict that stores", "order", lua("insert", ("if not same then", "if false then"))),
    _bug(
        "a trace that is dropped too early",
        "order",
        lua("journal", ("left and left <= 0", "left and left <= 1")),
    ),
    _bug(
        "a refused change that is written",
        "order",
        lua(
            "apply",
            (
                "  answer[n + 2] = verdict\n",
                "  if row and verdict == 'stale' then\n    row[OP], changed[id] = op, true\n  end\n  answer[n + 2] = verdict\n",
            ),
        ),
    ),
]

EFFECTS = [
    _bug("a lapse that forgets its token", "effect", lua("apply", ("if kind[LAPSED] ~= '1' then", "if true then"))),
    _bug("an expiry that stays", "effect", lua("apply", ("row[EX] = '' -- \"expired\"", '-- "expired"'))),
    _bug("a tally that only grows", "effect", lua("journal", ("n ~= 0 and redis", "n > 0 and redis"))),
    _bug("a cursor one too far", "index", lua("scan", ("low = middle + 1", "low = middle + 2"))),
    _bug(
        "a lease that stands in no index",
        "index",
        lua("journal", ("    place('lease', id, to and row[LE])\n", "")),
    ),
]

SUCCESS = [  # the short way of what is settled most
    _bug("a success under another's token", "fence", lua("success", ("held ~= token", "false"))),
    _bug("a success that leaves nothing", "index", lua("success", ("place('live', id, false)", "local _ = nil"))),
    _bug("a success whose body stays beside it", "effect", lua("success", ("bodies[id] = false", "local _ = nil"))),
    _bug(
        "a cause that is never left", "effect", lua("journal", ("(causes[cause] or 0) + n", "(causes[cause] or 0) + 1"))
    ),
]

IN_LUA = [*FENCES, *SUCCESS, *KEYS, *CLOCKS, *ORDER, *EFFECTS]
