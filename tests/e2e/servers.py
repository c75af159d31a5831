"""``deadletter serve`` as a process of its own, on a port that the kernel gives."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

_SOURCE = str(Path(__file__).parents[2] / "src")
_PLACE = re.compile(r"serving (http://\S+?)/ ")


class Serving:
    """A server process: ``base`` is where it is, ``stop`` ends it and answers its exit code."""

    def __init__(self, url: str, *options: str, port: int = 0, **environment: str) -> None:
        place = ["--url", url, "--port", str(port)]
        command = [sys.executable, "-m", "deadletter", "serve", *place, "--log", "json", *options]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("DEADLETTER_")}
        self.process = subprocess.Popen(
            command,
            env={**clean, "PYTHONPATH": _SOURCE, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.base = self._place()
        self.told = ""

    def _place(self) -> str:
        assert self.process.stderr is not None
        lines = ""
        while line := self.process.stderr.readline():
            lines += line
            found = _PLACE.search(line)
            if found is not None:
                return found[1]
        raise AssertionError(f"it does not serve: {lines}")

    @property
    def port(self) -> int:
        return int(self.base.rpartition(":")[2])

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; ``told`` is then what it wrote."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=30)
        self.told = out + err
        return self.process.returncode

    def kill(self) -> None:
        """As kill -9 does it."""
        self.process.kill()
        self.process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.kill()
