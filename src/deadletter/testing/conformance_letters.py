"""What is promised of sweeping, loading and scanning."""

from __future__ import annotations

import itertools

import attrs
import pytest

from ..model.record import EDITED, Reason
from ..model.row import LEAN, PENDING, Row, Scan
from ..rules import changes
from .material import KEEP_MS, LEASE_MS, Promises, Store, failure, letter, new, op


class SweepPromises(Promises):
    """Promises of ``Backend.sweep``."""

    async def test_a_sweep_forgets_what_is_past_its_keep(self, store: Store) -> None:
        """Succeeded, dead and gone rows vanish once their keep has passed, not before, with key and tally."""
        await store.must(changes.succeed(await store.running("s", key="ks"), op(), KEEP_MS))
        await store.dead("d", key="kd")
        await store.gone("g")
        await store.put(letter("for ever", keep_ms=None), new("pending"))
        await store.running("running", lease_ms=KEEP_MS * 9)
        store.pass_ms(KEEP_MS - 1)
        assert await store.sweep() == []
        assert [await store.state(id_) for id_ in "sd"] == ["succeeded", "dead"]
        store.pass_ms(1)
        assert await store.sweep() == []
        assert await store.backend.load(store.queue, ["s", "d", "g"]) == [None] * 3
        assert [await store.state(id_) for id_ in ("for ever", "pending", "running")] == ["dead", "pending", "running"]
        assert sum((await store.counts()).tally.values()) == 3
        assert [row.id for row in await store.scanned()] == ["for ever"]
        await store.put(new("x", key="ks"), new("y", key="kd"), new("d", digest="other"))

    async def test_a_pending_row_without_an_expiry_stays(self, store: Store) -> None:
        """No sweep takes what waits, however long it does: so a pause holds until it is lifted."""
        await store.put(new("p", type="mail.*", key="k"))
        for _ in range(2):
            store.pass_ms(365 * 24 * 3600 * 1000)
            assert await store.sweep() == []
        assert [row.id for row in await store.scanned(state="pending", history=0, body=False)] == ["p"]

    async def test_forgotten_letters_are_counted(self, store: Store) -> None:
        """Letters that age out are counted as such, by type; what merely ended is not."""
        await store.put(letter("a", keep_ms=5), letter("b", keep_ms=5), letter("c", keep_ms=5, type="u"))
        await store.gone("g", keep_ms=5)
        store.pass_ms(5)
        await store.sweep()
        lifetime = (await store.counts()).lifetime
        assert {key: n for key, n in lifetime.items() if key[0] == "aged_out"} == {
            ("aged_out", "t", ""): 2,
            ("aged_out", "u", ""): 1,
        }

    async def test_a_sweep_forgets_in_bounded_steps(self, store: Store) -> None:
        """One sweep forgets at most `limit` rows; the next goes on, and each is counted once."""
        await store.put(*(letter(f"{n:02}", keep_ms=5) for n in range(25)))
        store.pass_ms(5)
        left = []
        for _ in range(3):
            await store.sweep(10)
            left.append(sum((await store.counts()).tally.values()))
            assert left[-1] >= 25 - 10 * len(left)
        while left[-1] and not self.ordered:
            await store.sweep(10)
            left.append(sum((await store.counts()).tally.values()))
        assert left == [15, 5, 0] or not self.ordered
        assert (await store.counts()).lifetime["aged_out", "t", ""] == 25

    async def test_a_replayed_letter_is_not_forgotten(self, store: Store) -> None:
        """The keep of a letter that was replayed means nothing any more; that of its next death does."""
        row = await store.dead()
        await store.must(changes.replay(row, op()))
        store.pass_ms(KEEP_MS)
        await store.sweep()
        assert await store.state() == "pending"
        await store.must(changes.die((await store.claim()).rows[0], op(), Reason.REJECTED, failure(), 50))
        store.pass_ms(50)
        await store.sweep()
        assert await store.backend.load(store.queue, ["a"]) == [None]

    async def test_a_sweep_answers_lapsed_leases_and_expiries(self, store: Store) -> None:
        """Rows whose lease ran out or that expired are answered whole, and stay as they are until a change."""
        await store.put(new("p", expires_ms=LEASE_MS, due_ms=LEASE_MS * 9), new("q"))
        await store.running("r")
        store.pass_ms(LEASE_MS - 1)
        assert await store.sweep() == []
        store.pass_ms(1)
        found = {row.id: row for row in await store.backend.sweep(store.queue, 100)}
        assert set(found) == {"p", "r"}
        for id_, row in found.items():
            assert row.body == f"body of {id_}".encode()
            assert row == await store.row(id_, history=1)
        assert sorted(await store.sweep()) == ["p", "r"]
        await store.must(
            changes.lapse(found["r"], op(), on_uncertain="retry", max_lease_losses=3), changes.expire(found["p"], op())
        )
        assert await store.sweep() == []

    async def test_a_sweep_answers_at_most_its_limit(self, store: Store) -> None:
        """Many lapsed and expired rows come in bounded steps, and all of them come."""
        for n in range(4):
            await store.running(f"r{n}", lease_ms=5)
        await store.put(*(new(f"p{n}", expires_ms=5) for n in range(4)))
        store.pass_ms(5)
        seen: set[str] = set()
        for _ in range(20):
            rows = await store.backend.sweep(store.queue, 3)
            if not rows:
                break
            assert len(rows) <= 3
            for row in rows:
                lapse = changes.lapse(row, op(), on_uncertain="retry", max_lease_losses=3)
                await store.must(changes.expire(row, op()) if row.state == PENDING else lapse)
                seen.add(row.id)
        assert len(seen) == 8


class LoadPromises(Promises):
    """Promises of ``Backend.load``."""

    async def test_rows_come_in_the_order_asked_for(self, store: Store) -> None:
        """Each asked id has its answer at its place: the row, a tombstone, or None."""
        await store.put(new("b"), new("a"))
        await store.gone("g")
        rows = await store.backend.load(store.queue, ["a", "nobody", "g", "b"])
        assert [row and (row.id, row.state) for row in rows] == [
            ("a", "pending"),
            None,
            ("g", "gone"),
            ("b", "pending"),
        ]

    @pytest.mark.parametrize(("history", "attempts"), [(0, []), (1, [5]), (20, [1, 2, 3, 4, 5])])
    async def test_as_many_failures_come_as_were_asked_for(
        self, store: Store, history: int, attempts: list[int]
    ) -> None:
        """None, the last, or all of them, oldest first; with every field as it was told."""
        told = [failure(n, message=f"Größe {n}", at_ms=n) for n in range(1, 6)]
        await store.put(letter("a", history=told))
        row = await store.row(history=history)
        assert [failure_.attempt for failure_ in row.history] == attempts
        assert row.history == (told[-history:] if history else [])
        [row] = await store.scanned(history=history)
        assert [failure_.attempt for failure_ in row.history] == attempts

    async def test_the_note_of_an_edit_is_not_the_last_failure(self, store: Store) -> None:
        """Asked for one failure, load, claim, sweep and scan bring what it died of, not the note of an edit after it."""
        note = failure(1, error_type=EDITED, message="payload edited", traceback="")
        await store.must(changes.replay(await store.dead(), op(), note=note))
        assert [told.message for told in (await store.row(history=20)).history] == ["no 1", "payload edited"]
        [claimed] = (await store.claim(lease_ms=5)).rows
        store.pass_ms(5)
        [swept] = await store.backend.sweep(store.queue, 100)
        [scanned] = await store.scanned(state="running")
        for row in (await store.row(history=1), claimed, swept, scanned):
            assert [told.message for told in row.history] == ["no 1"]

    async def test_a_note_alone_is_no_failure(self, store: Store) -> None:
        """A letter that was stored without a failure and edited has none to bring, only its note."""
        await store.put(letter("a", history=[]))
        note = failure(1, error_type=EDITED, message="payload edited", traceback="")
        await store.must(changes.replay(await store.row(), op(), note=note))
        [claimed] = (await store.claim()).rows
        assert (claimed.history, (await store.row(history=1)).history) == ([], [])
        assert [told.message for told in (await store.row(history=20)).history] == ["payload edited"]

    async def test_a_loaded_row_is_a_copy(self, store: Store) -> None:
        """What a caller does to a row that it was given does not reach the store."""
        row = await store.dead()
        row.state, row.body = "pending", b"changed"
        row.history.clear()
        again = await store.row()
        assert (again.state, again.body, len(again.history)) == ("dead", b"body of a", 1)


class ScanPromises(Promises):
    """Promises of ``Backend.scan``."""

    @pytest.mark.parametrize("newest_first", [True, False])
    async def test_pages_cover_everything_once_in_order(self, store: Store, newest_first: bool) -> None:
        """Pages go in (time, id) order, in both directions, equal times included: nothing twice, nothing left out."""
        for start in range(0, 25, 5):
            await store.put(*(letter(f"{n:02}") for n in range(start, start + 5)))
            store.pass_ms(1)
        rows = await store.scanned(newest_first=newest_first, limit=3)
        ids = [f"{n:02}" for n in range(25)]
        assert [row.id for row in rows] == (ids[::-1] if newest_first else ids)

    async def test_a_page_tells_where_the_next_begins(self, store: Store) -> None:
        """Every page but the last has a cursor; no page holds more rows than its limit."""
        page = await store.backend.scan(store.queue, Scan())
        assert (page.rows, page.after, page.now_ms) == ([], None, store.clock.now_ms())
        await store.put(*(letter(f"{n}") for n in range(5)))
        page = await store.backend.scan(store.queue, Scan(limit=2))
        assert ([row.id for row in page.rows], page.after) == (["4", "3"], (store.clock.now_ms(), "3"))

    async def test_a_letter_stands_under_its_death_the_others_under_their_creation(self, store: Store) -> None:
        """Dead rows are sorted by when they died, all others by when they were made."""
        old, young = await store.running("old"), None
        store.pass_ms(5)
        young = await store.running("young")
        store.pass_ms(5)
        running = await store.scanned(state="running", newest_first=False)
        assert [row.id for row in running] == ["old", "young"]
        for row in (young, old):
            await store.must(changes.die(row, op(), Reason.REJECTED, failure(), KEEP_MS))
            store.pass_ms(5)
        assert [row.id for row in await store.scanned(newest_first=False)] == ["young", "old"]

    async def test_each_state_is_scanned_by_itself(self, store: Store) -> None:
        """A scan sees rows of its state only; tombstones are in no scan."""
        await store.put(new("p"))
        await store.running("r")
        await store.must(changes.succeed(await store.running("s"), op(), KEEP_MS))
        await store.dead("d")
        await store.gone("g")
        for state in ("pending", "running", "succeeded", "dead"):
            assert [row.id for row in await store.scanned(state=state)] == [state[0]]

    @pytest.mark.parametrize("newest_first", [True, False])
    async def test_a_scan_keeps_to_its_times(self, store: Store, newest_first: bool) -> None:
        """`since_ms` and `until_ms` include their own millisecond, and nothing beyond it is let in."""
        start_ms = store.clock.now_ms()
        for n in range(6):
            await store.put(letter(f"{n}"), new(f"p{n}"))
            store.pass_ms(10)
        limits = {"since_ms": start_ms + 10, "until_ms": start_ms + 30, "newest_first": newest_first, "limit": 2}
        assert sorted(row.id for row in await store.scanned(**limits)) == ["1", "2", "3"]
        assert sorted(row.id for row in await store.scanned(state="pending", **limits)) == ["p1", "p2", "p3"]

    async def test_a_scan_goes_on_while_letters_come_and_go(self, store: Store) -> None:
        """Letters that die, are purged or replayed between two pages neither repeat nor hide the others."""
        for n in range(10):
            await store.put(letter(f"{n}"))
            store.pass_ms(1)
        first = await store.backend.scan(store.queue, Scan(limit=4))
        assert [row.id for row in first.rows] == ["9", "8", "7", "6"]
        await store.must(
            changes.purge(first.rows[3], op(), KEEP_MS), changes.purge(await store.row("5"), op(), KEEP_MS)
        )
        await store.must(changes.replay(await store.row("4"), op()))
        await store.put(letter("new"))
        rest = await store.scanned(limit=4, after=first.after)
        assert [row.id for row in rest] == ["3", "2", "1", "0"]

    async def test_bodies_come_only_where_wanted(self, store: Store) -> None:
        """`body=False` leaves the payload out and brings all else."""
        await store.put(letter("a"))
        [whole], [lean] = await store.scanned(), await store.scanned(body=False)
        assert (whole.body, lean.body) == (b"body of a", None)
        assert attrs.evolve(whole, body=None) == lean

    async def test_a_lean_scan_brings_what_tells_judges_and_groups_a_row(self, store: Store) -> None:
        """`lean=True` may leave out other columns, but none of these."""
        told = failure(fingerprint="beef", error_type="KeyError", release="2.0")
        await store.put(letter("a", priority=2, reason="rejected", history=[told]))
        [whole], [lean] = await store.scanned(history=0), await store.scanned(history=0, lean=True)
        assert [getattr(lean, name) for name in LEAN] == [getattr(whole, name) for name in LEAN]
        assert lean.body == whole.body

    @pytest.mark.parametrize(
        ("narrow", "matched"),
        [
            ({}, 9),
            ({"type": "u"}, 3),
            ({"type": "u", "priority": 1}, 2),
            ({"priority": 2, "reason": "rejected"}, 1),
            ({"fingerprint": "beef", "error_type": "KeyError"}, 3),
            ({"type": "nobody"}, 0),
            ({"state": "pending"}, 1),
            ({"state": "pending", "priority": 2}, 0),
        ],
    )
    async def test_a_count_is_that_of_the_rows_that_match(
        self, store: Store, narrow: dict[str, object], matched: int
    ) -> None:
        """Exact where it looked at all of them, else a lower bound; or None, from a store that cannot tell."""
        await store.put(new("p"))
        for n in range(9):
            told = failure(fingerprint="beef", error_type="KeyError")
            match = {"type": "u", "reason": "rejected", "history": [told]} if n in {1, 4, 8} else {}
            await store.put(letter(f"{n}", priority=2 if n in {2, 4} else 1, **match))
            store.pass_ms(1)
        scan = Scan(**narrow)  # type: ignore[arg-type]
        whole = await store.backend.count(store.queue, scan, 10)
        part = await store.backend.count(store.queue, scan, 2)
        if whole is not None and part is not None:
            assert (whole.matched, whole.whole) == (matched, True)
            assert part.matched == matched if part.whole else part.matched <= min(matched, 2)

    async def test_a_count_keeps_to_the_times(self, store: Store) -> None:
        """Both bounds belong to it."""
        for n in range(5):
            await store.put(letter(f"{n}"))
            store.pass_ms(1)
        times = [row.time_ms for row in await store.scanned(newest_first=False)]
        counted = await store.backend.count(store.queue, Scan(since_ms=times[1], until_ms=times[3]), 10)
        assert counted is None or (counted.matched, counted.whole) == (3, True)

    async def test_groups_are_those_of_the_letters_that_match(self, store: Store) -> None:
        """Each with all its letters, the first and the last of them; or None, from a store that cannot tell."""
        for n in range(9):
            told = failure(fingerprint="beef" if n % 3 else "f", release=f"{n % 2}.0")
            await store.put(letter(f"{n}", type="u" if n % 3 else "t", history=[told] if n else []))
            store.pass_ms(1)
        await store.must(changes.purge(await store.row("5"), op(), KEEP_MS))
        await store.must(changes.replay(await store.row("3"), op()))
        narrows: list[dict[str, object]] = [{}, {"type": "u"}, {"fingerprint": "beef"}, {"priority": 1}]
        for narrow, by in itertools.product(narrows, ("fingerprint", "type", "reason", "error_type", "release")):
            scan = Scan(**narrow)  # type: ignore[arg-type]
            groups = await store.backend.groups(store.queue, scan, by)
            rows = [row for row in await store.scanned() if all(getattr(row, k) == v for k, v in narrow.items())]
            if groups is not None:
                found = {group.key: (group.count, group.first_ms, group.newest.id) for group in groups}
                wanted: dict[str, list[Row]] = {}
                for row in rows:
                    wanted.setdefault(getattr(row, by) or "", []).append(row)
                assert found == {key: (len(of), of[-1].time_ms, of[0].id) for key, of in wanted.items()}
                assert {release for group in groups for release in group.releases} == {
                    row.release for row in rows if row.release
                }

    @pytest.mark.parametrize(
        "narrow",
        [
            {"type": "u"},
            {"priority": 2},
            {"fingerprint": "beef"},
            {"reason": "rejected"},
            {"error_type": "KeyError"},
            {"release": "2.0"},
            {"text": "größe"},
        ],
        ids=lambda narrow: next(iter(narrow)),
    )
    async def test_narrowing_loses_nothing(self, store: Store, narrow: dict[str, object]) -> None:
        """A backend may narrow a scan or not; what matches is found in any case, on whatever page."""
        for n in range(9):
            told = failure(fingerprint="beef", error_type="KeyError", release="2.0", message="Die GRÖSSE und Größe")
            match = {"type": "u", "priority": 2, "reason": "rejected", "history": [told]} if n in {1, 4, 8} else {}
            await store.put(letter(f"{n}", **match))
        found = [row.id for row in await store.scanned(limit=2, **narrow)]
        assert [id_ for id_ in found if id_ in {"1", "4", "8"}] == ["8", "4", "1"]
        assert len(found) == len(set(found))
