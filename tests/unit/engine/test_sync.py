"""The blocking calls: from any thread, beside any loop, after a fork and at exit."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deadletter import DeadLetterQueue, Query, Task, TaskNotFound
from deadletter.engine import sync

SRC = str(Path(__file__).parents[3] / "src")


def test_the_calls_block_and_answer() -> None:
    dlq = DeadLetterQueue("memory://")
    task_id = dlq.sync.enqueue(Task(type="x", payload={"a": 1}))
    assert dlq.sync.get(task_id).task.payload == {"a": 1}
    assert dlq.sync.enqueue_many([Task(type="x", id="a"), Task(type="x", id="b")]) == ["a", "b"]
    assert dlq.sync.process_task("a", lambda task: None) is True
    assert dlq.sync.cancel("b") is True
    letter = dlq.sync.capture(Task(type="x"), ValueError("no"))
    assert [record.task.id for record in dlq.sync.list(Query()).items] == [letter]
    assert dlq.sync is dlq.sync
    assert repr(dlq.sync) == f"{dlq!r}.sync"
    dlq.sync.aclose()


def test_errors_come_through() -> None:
    with pytest.raises(TaskNotFound):
        DeadLetterQueue("memory://").sync.get("nobody")


def test_names_and_documentation_are_the_queues_own() -> None:
    assert sync.SyncQueue.enqueue.__name__ == "enqueue"
    assert sync.SyncQueue.enqueue.__doc__ == DeadLetterQueue.enqueue.__doc__


@pytest.mark.anyio
async def test_beside_a_running_loop() -> None:
    dlq = DeadLetterQueue("memory://")
    task_id = dlq.sync.enqueue(Task(type="x"))
    assert (await dlq.get(task_id)).task.id == task_id


def test_many_threads_share_one_portal() -> None:
    dlq = DeadLetterQueue("memory://")
    sync._crossing.close()
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda n: dlq.sync.enqueue(Task(type="x", id=f"t{n}")), range(64)))
    assert sorted(ids) == sorted(f"t{n}" for n in range(64))
    assert sum(thread.name == "deadletter-sync" for thread in threading.enumerate()) == 1


def test_a_portal_that_was_closed_opens_again() -> None:
    dlq = DeadLetterQueue("memory://")
    dlq.sync.enqueue(Task(type="x"))
    sync._crossing.close()
    sync._crossing.close()
    assert dlq.sync.enqueue(Task(type="x", id="again")) == "again"


def test_scan_goes_over_pages() -> None:
    dlq = DeadLetterQueue("memory://")
    dlq.sync.enqueue_many([Task(type="x", id=f"t{n}") for n in range(250)])
    assert len(list(dlq.sync.scan(Query(state="pending")))) == 250
    some = dlq.sync.scan(Query(state="pending"))
    assert next(some).task.type == "x"


def test_subscribe_is_a_blocking_iterator() -> None:
    dlq = DeadLetterQueue("memory://")
    with dlq.sync.subscribe("dead") as events:
        task_id = dlq.sync.capture(Task(type="x"), ValueError("no"))
        event = next(events)
    assert (event.kind, event.task_id) == ("dead", task_id)


def test_events_end_with_their_source() -> None:
    async def two() -> object:
        yield 1
        yield 2

    assert list(sync._each(two())) == [1, 2]  # type: ignore[arg-type]


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
        env={**os.environ, "PYTHONPATH": SRC},
    )


def test_an_open_portal_does_not_hang_the_exit() -> None:
    done = run(
        "from deadletter import DeadLetterQueue, Task\n"
        "dlq = DeadLetterQueue('memory://')\n"
        "print(dlq.sync.enqueue(Task(type='x', id='a')))\n"
        "dlq.sync.subscribe('dead').__enter__()\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "a\n", "")


def test_a_forked_child_opens_its_own_portal(tmp_path: Path) -> None:
    done = run(
        "import os\n"
        "from deadletter import DeadLetterQueue, Task\n"
        "dlq = DeadLetterQueue('memory://')\n"
        "dlq.sync.enqueue(Task(type='x', id='a'))\n"
        "if (pid := os.fork()) == 0:\n"
        "    print('child', dlq.sync.enqueue(Task(type='x', id='b')), flush=True)\n"
        "else:\n"
        "    os.waitpid(pid, 0)\n"
        "    print('parent', dlq.sync.get('a').state)\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "child b\nparent pending\n", "")


def test_forgetting_without_a_portal_is_nothing() -> None:
    crossing = sync._Crossing()
    crossing.after_fork()
    crossing.close()
    assert crossing._left_behind == []
