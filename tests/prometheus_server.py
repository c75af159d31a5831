"""A Prometheus of a test's own (Debian's package), and what it answers."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

LONGEST = 60.0
SETTLED = 2.0  # seconds after which no scrape can change what was: a slow one marks its series as gone at its own start


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def wait_for(true: Callable[[], Any], what: str) -> Any:
    until = time.monotonic() + LONGEST
    while not (found := true()):
        assert time.monotonic() < until, f"{what} never came"
        time.sleep(0.1)
    return found


@attrs.frozen
class Prometheus:
    url: str

    def ask(self, path: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error

    def query(self, expression: str, *, at: float | None = None) -> list[tuple[dict[str, str], float]]:
        """The labels and value of each series that an expression answers, now or at a time."""
        when = {} if at is None else {"time": str(at)}
        found = self.ask("query", query=expression, **when)["result"]
        return [(sample["metric"], float(sample["value"][1])) for sample in found]

    def healthy(self) -> int:
        """How many targets were scraped well the last time."""
        return sum(target["health"] == "up" for target in self.ask("targets")["activeTargets"])


@contextmanager
def prometheus(folder: Path, targets: dict[str, Sequence[int]], *, rules: Sequence[Path] = ()) -> Iterator[Prometheus]:
    """One that scrapes local ports every second, by job."""
    folder.mkdir(exist_ok=True)
    jobs = [
        {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}" for port in ports]}]}
        for job, ports in targets.items()
    ]
    told = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "scrape_configs": jobs,
        "rule_files": [str(path) for path in rules],
    }
    (folder / "prometheus.yml").write_text(json.dumps(told))  # JSON is YAML
    port = free_port()
    log = folder / "log"
    with log.open("wb") as out:
        server = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=warn",
            ],
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        found = Prometheus(f"http://127.0.0.1:{port}")

        def ready() -> bool:
            assert server.poll() is None, log.read_text()
            try:
                with urllib.request.urlopen(f"{found.url}/-/ready", timeout=5):
                    return True
            except OSError:
                return False

        wait_for(ready, "Prometheus")
        yield found
    finally:
        server.terminate()
        server.wait(30)
