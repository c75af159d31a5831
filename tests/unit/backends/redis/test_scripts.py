"""The Lua files, as text."""

from __future__ import annotations

import re
from importlib.resources import files

import attrs
import pytest

from deadletter.backends.redis import RedisBackend, keys, records, scripts
from deadletter.backends.redis.scripts import NAMES, load_script
from deadletter.model.row import Change, NewRow, Row

LUA = files("deadletter.backends.redis").joinpath("lua")
every_script = pytest.mark.parametrize("name", NAMES)


def test_every_file_is_a_script_or_included_by_one() -> None:
    included = {part for name in NAMES for part in re.findall(r"-- include: (.+)", lua(name))[0].split()}
    assert {file.name for file in LUA.iterdir()} == {f"{name}.lua" for name in {*NAMES, *included}}


def lua(name: str) -> str:
    return LUA.joinpath(f"{name}.lua").read_text()


@every_script
def test_a_script_says_what_it_takes_and_answers(name: str) -> None:
    head = lua(name).splitlines()[:6]
    assert head[0].startswith("#!lua")
    assert any(line.startswith("-- include: prelude") for line in head)
    assert any(line.startswith("-- ARGV ") for line in head)
    assert "-- answer " in lua(name)


@every_script
def test_the_slot_probe_comes_before_anything_else(name: str) -> None:
    """A script that a moving slot tears in half must not have written yet."""
    text = load_script(name).text
    assert text.index("redis.pcall('EXISTS', prefix .. 'never')") < text.index("redis.call(")


@every_script
def test_a_stand_in_gets_no_shebang(name: str) -> None:
    script = load_script(name)
    assert script.text.startswith("#!lua")
    assert not script.plain.text.startswith("#!")
    assert script.plain.sha != script.sha


@every_script
def test_no_command_that_grows_with_the_store(name: str) -> None:
    assert not re.search(r"'(KEYS|SMEMBERS|SCAN|HGETALL|SORT|FLUSH\w*)'", BOUNDED_HGETALL.sub("", lua(name)))


BOUNDED_HGETALL = re.compile(  # after HLEN
    r"if redis\.call\('HLEN', ([^)]*)\) > most then\n\s+return false\n\s+end\n[^\n]*redis\.call\('HGETALL', \1\)"
)


@every_script
def test_a_script_only_reads_where_it_says_so(name: str) -> None:
    """Readers may run on a full server; of the writers only insert may be refused for want of memory."""
    flags = lua(name).splitlines()[0]
    if name in ("load", "scan", "groups", "counts"):
        assert "no-writes" in flags
        assert not re.search(r"'(SET|MSET|HSET|ZADD|ZREM|DEL|UNLINK|HINCRBY|XADD|PUBLISH)'", load_script(name).text)
    else:
        assert ("allow-oom" in flags) == (name != "insert")


def test_a_record_holds_all_of_a_row() -> None:
    stored = set(keys.FIELDS) - {"has_failures"}
    assert stored == {field.name for field in attrs.fields(Row)} - {"id", "body", "history"}
    named = re.findall(r"[A-Z]{2}", re.findall(r"local (FM, [^=]+) =", lua("prelude"))[0])
    assert len(named) - 1 == len(keys.FIELDS) == int(re.findall(r"local FIELDS = (\d+)", lua("prelude"))[0])


def test_the_format_is_the_same_on_both_sides() -> None:
    assert int(re.findall(r"local FORMAT = (\d+)", lua("prelude"))[0]) == keys.RECORD


def test_a_change_crosses_whole() -> None:
    """Each field is part of a kind or the change's own, and Lua counts them as we do."""
    assert {*records.KIND, *records.OWN} == {field.name for field in attrs.fields(Change)}
    kind, change = re.findall(r"local KIND, CHANGE = (\d+), (\d+)", lua("apply"))[0]
    args = records.change_args([Change(id="a", op="o", was="pending", to="gone")])
    assert len(args) == 3 + int(kind) + int(change)


def test_a_new_row_crosses_whole() -> None:
    kind, new, failure = map(int, re.findall(r"local KIND, NEW, FAILURE = (\d+), (\d+), (\d+)", lua("insert"))[0])
    assert len(records.insert_args([NewRow(id="a", type="t")])) == 4 + kind + new
    assert failure == 4
    assert re.findall(r"local KIND, NEW = (\d+), (\d+)", lua("fresh")) == [(str(kind), str(new))]
    known = {field.name for field in attrs.fields(NewRow)}
    assert known == {
        *("id", "type", "priority", "key", "digest", "body", "state", "due_ms", "due_at_ms", "expires_ms", "keep_ms"),
        *("token", "lease_ms", "owner", "redact", "release", "reason", "attempts", "replays", "history"),
        *("created_at_ms", "ended_at_ms", "count", "lease_losses", "postpones"),
    }, "a new field: send it in records.insert_args and store it in insert.lua"


def test_rows_alike_are_sent_once() -> None:
    alike = records.insert_args([NewRow(id=f"{n}", type="t", redact="card") for n in range(100)])
    assert alike[0] == 1


@pytest.mark.parametrize("text", ["", "plain", "a\x1fb", "\x1e", "\x1eb\x1f\x1ee", "\x1f\x1e\x1f"])
def test_what_is_escaped_comes_back(text: str) -> None:
    assert keys.unescaped(keys.escaped(text)) == text
    assert "\x1f" not in keys.escaped(text)


@pytest.mark.parametrize("queue", ["default", "a:b", "a}b{", "ünï", "\x1fworkers\x1fdefault"])
def test_a_queue_has_one_slot(queue: str) -> None:
    from redis.crc import key_slot

    prefix = keys.prefix(queue)
    assert re.fullmatch(r"dl:\{[A-Za-z0-9._~%-]+:0\}:", prefix)
    assert key_slot(f"{prefix}t:}}{{".encode()) == key_slot(f"{prefix}meta".encode())


def test_a_backend_has_read_every_script_when_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fork while another thread reads its first one would leave the child an import lock that nobody opens."""
    load_script.cache_clear()
    RedisBackend("redis://nowhere")

    def read(name: str) -> str:
        raise AssertionError(f"{name} is read late")

    monkeypatch.setattr(scripts, "_read", read)
    assert [load_script(name).name for name in NAMES] == list(NAMES)


@pytest.mark.parametrize("digest", ["", "x", "d" * 63, "D" * 64, "g" * 64, " d" * 32, "ü" * 64])
def test_only_a_sha256_in_hex_is_shortened(digest: str) -> None:
    """Whatever else a caller takes for a digest stays as it is, so that no two become one."""
    [*_, told, _, _, _, _, _, _] = records.insert_args([NewRow(id="a", type="t", digest=digest)])
    assert told == digest


def test_equal_digests_stay_equal_and_others_differ() -> None:
    def told(digest: str) -> object:
        return records.insert_args([NewRow(id="a", type="t", digest=digest)])[-7]

    assert told("0123456789abcdef" * 4) == told("0123456789abcdef" * 4) == "ASNFZ4mrze8BI0VniavN7w"
    assert told("0" * 32 + "1" + "0" * 31) != told("0" * 64)
