from __future__ import annotations

import re

from deadletter.runtime.chance import Chance, new_id


def test_ids_are_distinct_and_sorted_by_time() -> None:
    ids = [new_id() for _ in range(1_000)]
    assert len(set(ids)) == 1_000
    assert [id_[:13] for id_ in ids] == sorted(id_[:13] for id_ in ids)  # the 48 bits of milliseconds
    assert all(re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", id_) for id_ in ids)


def test_a_seed_gives_the_same_again() -> None:
    one, same, other = Chance(7), Chance(7), Chance(8)
    names = [one.name() for _ in range(5)]
    assert names == [same.name() for _ in range(5)]
    assert names != [other.name() for _ in range(5)]
    assert one.random.random() == same.random.random()
    assert Chance(0).name() == Chance(0).name()  # 0 is a seed like any other


def test_without_a_seed_names_differ_and_have_96_bits() -> None:
    names = {Chance().name() for _ in range(100)}
    assert len(names) == 100
    assert all(re.fullmatch(r"[0-9a-f]{24}", name) for name in {*names, Chance(1).name()})
