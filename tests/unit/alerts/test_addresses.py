"""Where nothing is ever sent."""

from __future__ import annotations

import pytest

from deadletter.alerts.addresses import refusal


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "169.254.0.1",
        "100.100.100.200",
        "192.0.0.192",
        "168.63.129.16",
        "fe80::1",
        "fe80::1%eth0",
        "fd00:ec2::254",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "::a9fe:a9fe",
        "224.0.0.1",
        "ff02::1",
        "0.0.0.0",
        "0.1.2.3",
        "::",
        "not an address",
    ],
)
def test_refused(address: str) -> None:
    assert refusal(address) is not None


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "10.0.0.7", "192.168.1.1", "172.16.0.1", "fd12::1", "93.184.216.34", "2606:2800::1"]
)
def test_public_private_and_loopback_are_the_operators_choice(address: str) -> None:
    assert refusal(address) is None
