"""Where the pages of worker processes are."""

from __future__ import annotations

import pytest

from deadletter import DeadLetterQueue
from deadletter.cli.exits import BadUse
from deadletter.cli.working import _metrics, _ports


def test_each_process_has_the_next_port():
    assert _ports(9100, "::1", 2) == [
        ["--metrics-port", "9100", "--metrics-host=::1"],
        ["--metrics-port", "9101", "--metrics-host=::1"],
    ]


def test_the_system_chooses_for_each_where_it_may():
    assert [words[1] for words in _ports(0, "127.0.0.1", 3)] == ["0", "0", "0"]


def test_without_a_port_nobody_listens():
    assert _ports(None, "127.0.0.1", 3) == []


@pytest.mark.parametrize(("first", "processes"), [(65535, 2), (-1, 2), (70_000, 2)])
def test_ports_beyond_the_last_are_refused(first, processes):
    with pytest.raises(BadUse, match="--metrics-port"):
        _ports(first, "127.0.0.1", processes)


@pytest.mark.parametrize("port", [-1, 65_536])
def test_a_number_that_is_no_port_is_refused(port):
    with pytest.raises(BadUse, match=f"--metrics-port: {port} is no port"):
        _metrics([DeadLetterQueue("memory://")], port, "127.0.0.1")
