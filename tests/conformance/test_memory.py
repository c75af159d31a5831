from __future__ import annotations

from collections.abc import Callable

import pytest

from deadletter.backends.memory import MemoryBackend
from deadletter.interfaces import Backend, Clock
from deadletter.testing import BackendConformance, backend_state_machine


class TestMemory(BackendConformance):
    @pytest.fixture
    def make_backend(self) -> Callable[[Clock], Backend]:
        return lambda clock: MemoryBackend(clock=clock)


TestMemoryMachine = backend_state_machine(lambda clock: MemoryBackend(clock=clock)).TestCase
