"""Single values that JSON writes as text, each by the type that its annotation names."""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path, PosixPath, PurePath, PurePosixPath, PureWindowsPath
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs

_MICROSECOND = timedelta(microseconds=1)
_SECONDS = re.compile(r"(-?)(\d{1,15})(?:\.(\d{6}))?")


@attrs.frozen
class TextForm:
    """How one type is written as text, and read again."""

    write: Callable[[Any], str]
    read: Callable[[str], Any]


def _write_bytes(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _read_bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _write_datetime(value: datetime) -> str:
    # RFC 9557: the offset alone would lose the zone, and with it the hour after the next clock change
    zone = f"[{value.tzinfo.key}]" if isinstance(value.tzinfo, ZoneInfo) else ""
    return value.isoformat() + zone


def _read_datetime(text: str) -> datetime:
    stamp, bracket, zone = text.partition("[")
    at = datetime.fromisoformat(stamp)
    return at.astimezone(ZoneInfo(zone.removesuffix("]"))) if bracket else at


def _write_timedelta(value: timedelta) -> str:
    seconds, fraction = divmod(abs(value) // _MICROSECOND, 1_000_000)
    return f"{'-' if value < timedelta(0) else ''}{seconds}" + (f".{fraction:06}" if fraction else "")


def _read_timedelta(text: str) -> timedelta:
    match = _SECONDS.fullmatch(text)
    if match is None:
        raise ValueError("no count of seconds")
    sign, seconds, fraction = match.groups("0")
    length = timedelta(seconds=int(seconds), microseconds=int(fraction))
    return -length if sign == "-" else length


def _read_decimal(text: str) -> Decimal:
    number = Decimal(text)
    if number.is_snan():
        raise ValueError("a signaling NaN raises wherever it is compared")
    return number


def _write_zone(value: ZoneInfo) -> str:
    return value.key or ""


FORMS: dict[Any, TextForm] = {
    Decimal: TextForm(str, _read_decimal),
    UUID: TextForm(str, UUID),
    datetime: TextForm(_write_datetime, _read_datetime),
    date: TextForm(date.isoformat, date.fromisoformat),
    time: TextForm(time.isoformat, time.fromisoformat),
    timedelta: TextForm(_write_timedelta, _read_timedelta),
    bytes: TextForm(_write_bytes, _read_bytes),
    bytearray: TextForm(_write_bytes, lambda text: bytearray(_read_bytes(text))),
    complex: TextForm(str, complex),
    ZoneInfo: TextForm(_write_zone, ZoneInfo),
}
for _type in (
    *(Path, PosixPath, PurePath, PurePosixPath, PureWindowsPath),
    *(ipaddress.IPv4Address, ipaddress.IPv4Network, ipaddress.IPv4Interface),
    *(ipaddress.IPv6Address, ipaddress.IPv6Network, ipaddress.IPv6Interface),
):
    FORMS[_type] = TextForm(str, _type)
