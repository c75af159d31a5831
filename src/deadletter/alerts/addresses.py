"""Which addresses an alert is never sent to, whatever a name resolves to.

Operators configure where alerts go, so loopback and private networks are fine. What answers on a link-local or metadata
address hands out the machine's credentials, and nobody means to alert it.
"""

from __future__ import annotations

import ipaddress
from typing import TypeAlias

Address: TypeAlias = "ipaddress.IPv4Address | ipaddress.IPv6Address"

_METADATA = {
    ipaddress.ip_address(text)
    for text in ("169.254.169.254", "100.100.100.200", "192.0.0.192", "168.63.129.16", "fd00:ec2::254", "fd20:ce::254")
}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def refusal(text: str) -> str | None:
    """Why nothing is sent to an address; None where it is fine."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return "no address"
    inner = _inner(address)
    for each in (address, *([inner] if inner is not None else [])):
        if each in _METADATA:
            return "a cloud's metadata service"
        if each.is_link_local:
            return "link-local"
        if each.is_multicast:
            return "multicast"
        if each.is_unspecified or (each.version == 4 and each in ipaddress.ip_network("0.0.0.0/8")):
            return "no host's address"
    return None


def _inner(address: Address) -> Address | None:
    """The IPv4 address that an IPv6 one stands for."""
    if address.version == 4:
        return None
    teredo = address.teredo
    if address in _NAT64 or address in ipaddress.ip_network("::/96"):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if int(address) > 1 else None
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo is not None else None)
