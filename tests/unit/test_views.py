from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadletter import DeadLetterQueue, Query, Task
from deadletter.model.record import Failure, State, TaskRecord
from deadletter.rules.error_text import plain
from deadletter.views import Viewer, bulk_item, group_item, groups, item, stats_item

SECRET = "hunter2-and-more"


async def _letter(dlq: DeadLetterQueue) -> str:
    task = Task(type="mail", payload={"password": SECRET, "card": "4111-1111", "n": 1}, idempotency_key=f"k-{SECRET}")
    return await dlq.capture(task, ValueError(f"refused {SECRET}"))


@pytest.mark.anyio
async def test_an_item_has_the_fields_of_the_contract_and_hides_what_is_hidden() -> None:
    async with DeadLetterQueue("memory://", redact=("card",)) as dlq:
        record = await dlq.get(await _letter(dlq))
        shown = item(record, Viewer().redactor(record))
    assert list(shown) == [
        "id",
        "type",
        "queue",
        "priority",
        "state",
        "reason",
        "payload",
        "attempts",
        "max_retries",
        "idempotency_key",
        "metadata",
        "created_at",
        "due_at",
        "died_at",
        "expires_at",
        "replays",
        "replayable",
        "error",
        "history",
    ]
    assert shown["payload"] == {"password": {"$redacted": True}, "card": {"$redacted": True}, "n": 1}
    assert set(shown["error"]) == {"type", "message", "traceback", "fingerprint", "attempt", "at", "release"}
    assert shown["died_at"].endswith("Z")
    assert SECRET not in json.dumps(shown)
    assert "4111" not in json.dumps(shown)


@pytest.mark.anyio
async def test_a_list_leaves_out_traceback_and_history() -> None:
    async with DeadLetterQueue("memory://") as dlq:
        record = await dlq.get(await _letter(dlq))
        shown = item(record, Viewer().redactor(record), whole=False)
    assert "history" not in shown
    assert "traceback" not in shown["error"]


@pytest.mark.anyio
async def test_reveal_shows_everything() -> None:
    async with DeadLetterQueue("memory://") as dlq:
        record = await dlq.get(await _letter(dlq))
        viewer = Viewer(reveal=True)
        assert item(record, viewer.redactor(record))["payload"]["password"] == SECRET
        assert viewer.queue(dlq) is dlq
        assert viewer.see(record) is record


@pytest.mark.anyio
async def test_conditions_match_only_what_a_viewer_sees_and_totals_tell_nothing_else() -> None:
    async with DeadLetterQueue("memory://") as dlq:
        await _letter(dlq)
        seen = Viewer().queue(dlq)
        for query in (
            Query(error_contains=SECRET),
            Query(payload={"password": SECRET}),
            Query(idempotency_key=f"k-{SECRET}"),
        ):
            page = await seen.list(query)
            assert (list(page.items), page.total, page.total_at_least) == ([], 0, 0)
            assert (await seen.retry_all(query, dry_run=True)).matched == 0
            assert (await dlq.list(query)).total == 1
        assert (await seen.list(Query(error_contains="refused"))).total == 1


@pytest.mark.anyio
async def test_a_group_sample_hides_values() -> None:
    async with DeadLetterQueue("memory://") as dlq:
        await _letter(dlq)
        [hidden] = await groups(dlq, Viewer(), Query())
        [shown] = await groups(dlq, Viewer(reveal=True), Query())
    assert hidden.message == "refused [redacted]"
    assert shown.message == f"refused {SECRET}"
    assert json.loads(json.dumps(group_item(hidden)))["count"] == 1


@pytest.mark.anyio
async def test_stats_and_bulk_results_are_json() -> None:
    async with DeadLetterQueue("memory://") as dlq:
        await _letter(dlq)
        assert json.loads(json.dumps(stats_item(await dlq.stats())))["by_state"]["dead"] == 1
        assert json.loads(json.dumps(bulk_item(await dlq.purge(everything=True))))["changed"] == 1


@pytest.mark.anyio
async def test_the_text_of_a_mask_is_found_and_what_it_completes_by_chance_is_not() -> None:
    """The store would look for "refused [r" in the value, and so tell how it begins."""
    async with DeadLetterQueue("memory://") as dlq:
        for secret in ("[r4nd0m", "s3cret-s3cret"):
            await dlq.capture(Task(type="mail", payload={"password": secret}), ValueError(f"refused {secret}"))
        seen = Viewer().queue(dlq)
        for text in ("refused [r", "[REDACTED]", "edact", "d]"):
            assert (await seen.list(Query(error_contains=text))).total == 2
            assert (await seen.purge(Query(error_contains=text), dry_run=True)).matched == 2
            assert len([record async for record in seen.scan(Query(error_contains=text))]) == 2
            found = await groups(dlq, Viewer(), Query(error_contains=text))
            assert [(group.count, group.message) for group in found] == [(2, "refused [redacted]")]


@pytest.mark.anyio
async def test_a_row_whose_paths_nobody_can_read_shows_no_value() -> None:
    async with DeadLetterQueue("memory://") as dlq:
        record = await dlq.get(await _letter(dlq))
    hidden = Viewer(paths=("a..b",)).see(record)
    assert SECRET not in repr(hidden)
    assert hidden.task.payload["n"] == {"$redacted": True}


names = st.sampled_from(["card", "name", "password", "note", "n"])
secrets = st.text("ΩЖжあ漢é'\"\\\n\t&%+/ ", min_size=4, max_size=40).filter(lambda text: len(text.strip()) > 3)
hidden_values = st.recursive(
    secrets | st.integers(10_000) | st.floats(1e4, 1e9),
    lambda inner: st.lists(inner, min_size=1, max_size=3) | st.dictionaries(names, inner, min_size=1, max_size=3),
    max_leaves=5,
)
shown = st.sampled_from([str, repr, json.dumps, ascii, lambda value: quote(str(value))])


@given(hidden_values, st.dictionaries(names, hidden_values, max_size=3), shown)
def test_no_view_of_any_payload_holds_a_hidden_value(value: Any, other: dict[str, Any], show: Any) -> None:
    """Whatever else the payload holds, and wherever its error repeats the value."""
    payload = {**other, "secret": {"value": value}, "copies": [value, {"text": f"<{value}>"}]}
    text = plain(f"refused {show(value)} of {show(payload)}")
    now = datetime(2026, 1, 1, tzinfo=UTC)
    failure = Failure(attempt=1, at=now, error_type="E", message=text, traceback=f"  | {text}")
    task = Task(type="t", id="a", payload=payload, metadata={"m": str(value)})
    record = TaskRecord(
        task=task, state=State.DEAD, attempts=1, due_at=now, created_at=now, history=[failure], redact=("secret.value",)
    )
    seen = item(record, Viewer().redactor(record))
    told = [seen["error"]["message"], seen["error"]["traceback"], *seen["metadata"].values(), *_texts(seen["payload"])]
    for leaf in _texts(value):
        for spelling in (leaf, repr(leaf)[1:-1], json.dumps(leaf)[1:-1], quote(leaf)):
            assert not any(spelling in shown_text for shown_text in told)


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for inner in value.values() for text in _texts(inner)]
    if isinstance(value, list):
        return [text for inner in value for text in _texts(inner)]
    return [] if isinstance(value, bool) else [str(value)]
