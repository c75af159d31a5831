"""For tests of what is built on deadletter, and of what is put below it.

``VirtualClock`` skips the waiting, and pytest has the fixtures ``dlq``, ``dlq_worker``, ``assert_dead`` and
``assert_enqueued`` by itself (``deadletter.testing.plugin``). A backend of your own is proved by two classes. Build it on
``deadletter.rules.machine``, which decides what may happen to a row, and ``deadletter.model.row``, what it is::

    class TestMine(BackendConformance):
        @pytest.fixture
        def make_backend(self, tmp_path):
            return lambda clock: MyBackend(tmp_path / "store", clock=clock)

    TestMyMachine = backend_state_machine(lambda clock: MyBackend(":memory:", clock=clock)).TestCase

The first wants pytest, the second Hypothesis (``pip install "deadletter-sdk[test]"``): each is imported when asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .conformance import BackendConformance
    from .expecting import DueWork, Expecting
    from .state_machine import BackendStateMachine, backend_state_machine
    from .virtual_clock import VirtualClock

# All of them lazy: the pytest plugin lies in this package, and every pytest run imports it.
_LAZY = {
    "BackendConformance": ".conformance",
    "BackendStateMachine": ".state_machine",
    "DueWork": ".expecting",
    "Expecting": ".expecting",
    "VirtualClock": ".virtual_clock",
    "backend_state_machine": ".state_machine",
}

__all__ = [
    "BackendConformance",
    "BackendStateMachine",
    "DueWork",
    "Expecting",
    "VirtualClock",
    "backend_state_machine",
]


def __getattr__(name: str) -> object:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(module, __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
