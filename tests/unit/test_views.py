from __future__ import annotations

import json

import pytest

from deadletter import DeadLetterQueue, Query, Task
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
