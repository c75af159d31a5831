"""Inputs by Hypothesis, which shrinks what it finds: almost what a target takes, and then one thing wrong in it."""

from __future__ import annotations

import functools
from typing import Any

import orjson
from hypothesis import strategies as st

from .corpus import inputs
from .mutator import NASTY_VALUES, Mutator
from .run import WITH_HEAD
from .signatures import FUNCTIONS

TEXT = st.text(max_size=30)
_LEAVES = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | TEXT | st.sampled_from(NASTY_VALUES)
)
JSON: st.SearchStrategy[Any] = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=12
)


def _written(document: Any) -> bytes:
    return orjson.dumps(document)


def _object_of(target: str) -> st.SearchStrategy[bytes]:
    """A document of the corpus with some of its fields replaced."""
    whole: list[dict[str, Any]] = [
        document
        for data in inputs(target)
        if data[:1] == b"{" and isinstance(document := _read(data), dict) and document
    ]
    names = sorted({name for document in whole for name in document})

    def changed(document: dict[str, Any], changes: dict[str, Any], gone: list[str]) -> bytes:
        return _written({name: value for name, value in {**document, **changes}.items() if name not in gone})

    return st.builds(
        changed,
        st.sampled_from(whole),
        st.dictionaries(st.sampled_from(names), JSON, max_size=2),
        st.lists(st.sampled_from(names), max_size=1),
    )


def _read(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None


def _payloads() -> st.SearchStrategy[bytes]:
    names = st.sampled_from(["a", "b", "c", "d", "e", "rest", "more"])
    head = st.integers(0, len(FUNCTIONS) - 1).map(lambda number: bytes([number]))
    return st.builds(lambda first, document: first + _written(document), head, st.dictionaries(names, JSON, max_size=4))


def _joined(separator: bytes, *parts: st.SearchStrategy[str]) -> st.SearchStrategy[bytes]:
    return st.tuples(*parts).map(lambda found: separator.join(part.encode("utf-8", "surrogatepass") for part in found))


_GLOB = st.text(st.sampled_from("*\\ab.é\n"), max_size=14)
_SETTING = st.tuples(
    st.sampled_from(["URL", "QUEUE", "RETRY_DELAYS", "DLQ_TTL", "ALERT_THRESHOLD", "RELEASE", "REDACT", "SPOOL"]),
    TEXT
    | st.from_regex(r"([0-9]{1,13}(ms|[smhdw])?[, ]?){1,5}", fullmatch=True)
    | st.from_regex(r"[a-z.*\[\]0$]{1,20}"),
).map("=".join)
_URL = st.builds(
    "{}://{}{}{}".format,
    st.sampled_from(["memory", "sqlite", "redis", "rediss", "unix", "redis+sentinel", "redis+cluster", "postgresql"]),
    st.sampled_from(["", "u:p@"]) | st.from_regex(r"[a-z%:@\[\]0-9]{0,8}", fullmatch=True),
    st.sampled_from(["", "h", "h:1", "h:70000", "[::1]:5", "a:1,b:2", "/x/y", "/main/0"]) | TEXT,
    st.sampled_from(["", "?", "?shards=2", "?durability=wait:1", "?synchronous=off"]) | TEXT.map("?{}".format),
)


@functools.cache
def inputs_of(target: str) -> st.SearchStrategy[bytes]:
    """The inputs of a target: well made with a fault, changed from the corpus, or any bytes."""
    made: dict[str, st.SearchStrategy[bytes]] = {
        "codec": st.builds(lambda payload: _written({"p": payload}), JSON) | _object_of("codec"),
        "cursor": st.binary(max_size=80),
        "glob": _joined(b"\0", _GLOB, _GLOB),
        "query": _object_of("query"),
        "import": _object_of("import"),
        "settings": st.lists(_SETTING, max_size=3).map(lambda found: "\0".join(found).encode("utf-8", "surrogatepass")),
        "url": _URL.map(lambda text: text.encode("utf-8", "surrogatepass")),
        "arguments": _payloads(),
    }
    mutator = Mutator(inputs(target), 0, head=int(target in WITH_HEAD))
    return made[target] | st.integers(0, 1 << 40).map(mutator.make) | st.binary(max_size=60)
