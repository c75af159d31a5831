from __future__ import annotations

import threading

from deadletter.runtime.threads import start_thread


def test_a_thread_is_named_and_holds_up_no_exit() -> None:
    ran: list[threading.Thread] = []
    thread = start_thread("keeper", lambda: ran.append(threading.current_thread()))
    thread.join(5)
    assert ran == [thread]
    assert (thread.name, thread.daemon) == ("deadletter-keeper", True)
