"""The suite that proves a backend."""

from __future__ import annotations

import pytest

_SUBJECTS = ("material", "insert", "claim", "fence", "apply", "letters", "groups", "events", "races")
for _name in _SUBJECTS:  # so that a broken promise shows the values of its assertion
    _module = _name if _name == "material" else f"conformance_{_name}"
    pytest.register_assert_rewrite(f"{__package__}.{_module}")

from .conformance_apply import ApplyPromises  # noqa: E402 - after the rewrite
from .conformance_claim import ClaimPromises  # noqa: E402
from .conformance_events import EventPromises  # noqa: E402
from .conformance_fence import FencePromises  # noqa: E402
from .conformance_groups import GroupPromises  # noqa: E402
from .conformance_insert import InsertPromises, KeyPromises  # noqa: E402
from .conformance_letters import LoadPromises, ScanPromises, SweepPromises  # noqa: E402
from .conformance_races import RacePromises  # noqa: E402


class BackendConformance(
    InsertPromises,
    KeyPromises,
    ClaimPromises,
    FencePromises,
    ApplyPromises,
    SweepPromises,
    LoadPromises,
    ScanPromises,
    GroupPromises,
    EventPromises,
    RacePromises,
):
    """What every backend promises, as tests.

    Subclass it and say how to make yours::

        class TestMyBackend(BackendConformance):
            @pytest.fixture
            def make_backend(self, tmp_path):
                return lambda clock: MyBackend(tmp_path / "store", clock=clock)

    ``make_backend`` returns a function from a clock to a backend on a fresh, empty store. It is opened and closed for
    you, and takes every time from that clock. Where a store outlives its backend, override ``reopen`` as well: a
    function from the open backend and the clock to a second one on the same store.

    ``ordered = False`` on the subclass is for a store that spreads a queue over parts and says so: order among rows and
    among events, and that an insert is all or nothing, are then promised within a part, and these tests compare sets.

    Each test's docstring is the promise, and is printed where it is broken. They run on asyncio and trio by anyio's
    plugin; a fixture ``anyio_backend`` of your own narrows that. Callers never send over 100 items a step, so no
    test does.
    """
