from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from deadletter.backends.redis.placement import Homes, home, packed, place, unpacked
from deadletter.model.row import NewRow

POSITIONS = st.lists(st.integers(0, 2**40 - 1), min_size=1, max_size=64)


def test_a_place_is_the_same_for_ever() -> None:
    """What is stored is found by these values: where this test fails, every sharded queue out there is lost."""
    assert [home(id_, 64) for id_ in ("a", "0198c0de-0000-7000-8000-000000000000", "ünï")] == [52, 42, 59]
    assert [place(NewRow(id="a", type="t", key=key), 64) for key in ("k", "a", "")] == [41, 24, 6]


@settings(max_examples=30, deadline=None)
@given(st.text(min_size=1), st.text(), st.integers(1, 64))
def test_a_key_decides_where_there_is_one(id_: str, key: str, shards: int) -> None:
    new = NewRow(id=id_, type="t", key=key)
    assert place(new, shards) == place(NewRow(id=f"{id_}x", type="u", key=key), shards) < shards
    assert place(NewRow(id=id_, type="t"), shards) == home(id_, shards)


def test_places_are_spread() -> None:
    found = [home(f"id{n}", 4) for n in range(1000)]
    assert all(200 < found.count(shard) < 300 for shard in range(4))


def test_few_exceptions_are_remembered() -> None:
    homes = Homes(4, most=2)
    ids = [f"id{n}" for n in range(20) if home(f"id{n}", 4) != 3]
    homes.learn(3, ids)
    assert [id_ for id_ in ids if homes[id_] == 3] == ids[-2:]
    homes.learn(home(ids[-1], 4), [ids[-1]])
    assert homes[ids[-1]] == home(ids[-1], 4)


@given(POSITIONS, st.data())
def test_a_packed_position_rises_with_each_of_its_parts(positions: list[int], data: st.DataObject) -> None:
    assert unpacked(packed(positions), len(positions)) == positions
    at = data.draw(st.integers(0, len(positions) - 1))
    later = [position + (n == at and position < 2**40 - 1) for n, position in enumerate(positions)]
    assert (packed(later) > packed(positions)) == (later != positions)
    assert packed([7]) == 7
