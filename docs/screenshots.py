"""Takes the pictures of ``how-to/use-the-dashboard``: ``nox -s screenshots``.

A queue with a bad afternoon behind it is written to a SQLite file, served, and looked at by Debian's Chromium.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import subprocess
import sys
import tempfile
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from deadletter import DeadLetterQueue, Task
from deadletter.engine.presence import reserved
from deadletter.http import samples
from deadletter.model.row import DEAD, NewRow

OUT = Path(__file__).parent / "images"
CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync")


SHOP = """
class CardDeclined(Exception):
    pass


def send(task, host):
    return connect(host, port=587)


def connect(host, port):
    raise ConnectionRefusedError(f"[Errno 111] Connect call failed ({host!r}, {port})")


def charge(task, host):
    return post("https://payments.example.com/charges", task.payload)


def post(url, document, timeout=10):
    raise TimeoutError(f"no answer from payments.example.com within {timeout} s")


def refuse(task, host):
    raise CardDeclined("card declined: insufficient funds")


def build(task, host):
    return {"Q1": 1, "Q2": 2}[task.payload["quarter"]]


def deliver(task, host):
    raise ValueError("410 Gone from https://partner.example.com/hooks")
"""
CAUSES: tuple[tuple[str, str, str, int, dict[str, Any]], ...] = (
    ("email.send", "2026.11.3", "send", 52, {"template": "welcome"}),
    ("billing.charge", "2026.11.3", "charge", 27, {"amount": "9.99"}),
    ("billing.charge", "2026.11.2", "refuse", 14, {"amount": "120.00"}),
    ("report.build", "2026.11.3", "build", 9, {"quarter": "Q3"}),
    ("webhook.deliver", "2026.11.1", "deliver", 4, {"event": "paid"}),
)


def shop() -> dict[str, Any]:
    """The code that fails, under a path that is nobody's."""
    names: dict[str, Any] = {"__name__": "shop.tasks"}
    exec(compile(SHOP, "shop/tasks.py", "exec"), names)  # noqa: S102 - written above
    return names


async def die(url: str, chance: random.Random) -> None:
    """Letters of five causes, each after three attempts."""
    names = shop()
    for type_, release, code, share, payload in CAUSES:
        async with DeadLetterQueue(
            url, redact=("card_number",), retry_delays=(0, 0), max_retries=2, release=release
        ) as dlq:
            fail = partial(names[code], host=f"10.2.0.{chance.randint(2, 9)}")
            for n in range(share):
                body = {**payload, "customer": {"id": 4000 + n, "plan": "pro"}, "card_number": "4111"}
                tenant = chance.choice(("acme", "umbrella"))
                task_id = await dlq.enqueue(Task(type=type_, payload=body, metadata={"tenant": tenant}))
                while (await dlq.get(task_id)).died_at is None:
                    await dlq.process_task(task_id, fail)


def spread(line: str, chance: random.Random) -> str:
    """The same letter some hours earlier: an outage that began suddenly and fades, over older trickles."""
    letter = json.loads(line)
    sudden = letter["type"] == "email.send"
    earlier = timedelta(minutes=chance.expovariate(1 / 35) if sudden else chance.uniform(1, 23 * 60))
    for entry in (letter, letter["error"], *letter["history"]):
        for name in ("created_at", "due_at", "died_at", "at"):
            if entry.get(name):
                entry[name] = (datetime.fromisoformat(entry[name]) - earlier).isoformat()
    return json.dumps(letter)


async def now(url: str, chance: random.Random) -> None:
    """What waits, what is paused."""
    async with DeadLetterQueue(url) as dlq:
        for n in range(7):
            await dlq.enqueue(Task(type="email.send", payload={"n": n}, delay=600))
        await dlq.pause("webhook.*", why="the partner moves its endpoint")
        await count(dlq, chance)


async def count(dlq: DeadLetterQueue, chance: random.Random) -> None:
    """A day of samples, as a server that was there would have kept them."""
    await samples.sample(dlq)
    now_ms = (await dlq.backend.inspect()).now_ms
    counters = dict.fromkeys(samples.SHOWN, 0)
    for slot in range(now_ms // samples.EVERY_MS - 288, now_ms // samples.EVERY_MS):
        left = now_ms // samples.EVERY_MS - slot
        outage = 9 if left < 14 else 0
        counters["dead"] += int(chance.random() < 0.25) + (outage and chance.randint(0, 4))
        counters["retry_attempts"] += chance.choice((0, 1, 1, 2)) + outage
        counters["replayed"] += 12 if left in {100, 101, 102} else 0
        at_ms = slot * samples.EVERY_MS
        body = json.dumps({"at_ms": at_ms, "counters": counters}).encode()
        row = NewRow(id=f"slot-{slot}", type="sample", body=body, state=DEAD, created_at_ms=at_ms, ended_at_ms=at_ms)
        await dlq.backend.insert(reserved("samples", dlq.name), [row])


def deadletter(*arguments: str) -> str:
    """Run a command."""
    command = [sys.executable, "-m", "deadletter", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603 - our own


def shoot(base: str) -> None:
    """Look at each screen."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        for name, path, scheme, width, height in SCREENS:
            page = browser.new_page(
                base_url=base, color_scheme=scheme, viewport={"width": width, "height": height}, device_scale_factor=1
            )
            page.goto("/letters?type=billing.charge" if path == "LETTER" else path)
            if path == "LETTER":
                page.locator(".c-type a").first.click()
            page.wait_for_load_state("load")
            if path == "/":
                page.wait_for_selector(".chart canvas")
            page.screenshot(path=OUT / f"dashboard-{name}.png")
            page.close()
        browser.close()


SCREENS: tuple[tuple[str, str, Any, int, int], ...] = (
    ("overview", "/", "light", 1280, 1180),
    ("overview-dark", "/", "dark", 1280, 1180),
    ("overview-narrow", "/", "light", 360, 1100),
    ("letters", "/letters?type=billing.*&newer_than=1d", "light", 1280, 860),
    ("letter", "LETTER", "light", 1280, 1180),
    ("review", "/review?type=email.send", "light", 1280, 860),
)


def main() -> None:
    """Fill, serve, look."""
    chance = random.Random(11)  # noqa: S311 - the same pictures every time
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as room:
        died, url = (f"sqlite:///{room}/{name}.db" for name in ("died", "shop"))
        asyncio.run(die(died, chance))
        lines = deadletter("export", "--url", died, "--reveal").splitlines()
        letters = Path(room, "letters.ndjson")
        letters.write_text("\n".join(spread(line, chance) for line in lines))
        deadletter("import", str(letters), "--url", url)
        asyncio.run(now(url, chance))
        command = [sys.executable, "-m", "deadletter", "serve", "--url", url, "--port", "0", "--log", "plain"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:  # noqa: S603 - our own
            try:
                assert server.stderr is not None  # noqa: S101 - it is a pipe
                place = next(found for line in server.stderr if (found := re.search(r"serving (http://\S+?)/ ", line)))
                shoot(place[1])
            finally:
                server.terminate()


if __name__ == "__main__":
    main()
