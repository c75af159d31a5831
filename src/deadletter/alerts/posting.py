"""A POST that cannot be turned against us: the address is checked on the connection itself, and no answer is repeated.

No redirect is followed, no proxy of the environment is used, and nothing of an answer but its status and ``Retry-After``
is read: what an internal service says to a request that it was tricked into must never reach a log or a letter.
"""

from __future__ import annotations

import email.utils
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import anyio

from ..model.errors import DeadLetterError, InvalidTask, MissingExtra
from ..model.outcome import PermanentError, RetryAfter
from .addresses import refusal

if TYPE_CHECKING:
    import ssl

    import httpx2

_LONGEST_URL = 2_000
_LONGEST_PAUSE = 3600.0
_TOO_EARLY = {408, 425, 429}


class NotDelivered(DeadLetterError):
    """A channel did not take an alert. It names the channel's host, and never its path, which may hold a secret."""


def check_url(field: str, text: object) -> httpx2.URL:
    """The URL of a channel. Raises InvalidTask that names the field; its value, which may hold a secret, is not told."""
    try:
        import httpx2
    except ModuleNotFoundError:
        raise MissingExtra("alerts", "sending alerts over HTTP") from None
    if not isinstance(text, str) or not text.isprintable() or not 1 <= len(text) <= _LONGEST_URL or " " in text:
        raise InvalidTask(field, f"give the URL of a webhook, of at most {_LONGEST_URL} printable characters")
    try:
        url = httpx2.URL(text)
    except (httpx2.InvalidURL, ValueError):
        raise InvalidTask(field, "it is no URL; write it like https://example.com/alerts") from None
    if url.scheme not in ("http", "https"):
        raise InvalidTask(field, f"{url.scheme or 'no scheme'!r:.40}: only http:// and https:// are sent to")
    if not url.host:
        raise InvalidTask(field, "it names no host; write it like https://example.com/alerts")
    why = refusal(url.host.strip("[]"))
    if why not in (None, "no address"):
        raise InvalidTask(field, f"{url.host} is {why}; nothing is ever sent there")
    return url


async def post(
    url: httpx2.URL,
    body: bytes,
    headers: Mapping[str, str],
    *,
    timeout: float,  # noqa: ASYNC109 - each phase has it, and all together
    tls: ssl.SSLContext | None = None,
    method: str = "POST",
) -> None:
    """Send it, and raise for any answer but 2xx.

    Raises:
        PermanentError: the receiver will never take it: 4xx but 408, 425 and 429, a redirect, a refused address.
        RetryAfter: 429 or 503 with ``Retry-After``.
        NotDelivered: anything else.
    """
    import httpcore2

    sent = {"Host": url.netloc.decode(), "User-Agent": "deadletter", "Content-Length": str(len(body)), **headers}
    if url.userinfo and "Authorization" not in headers:
        import httpx2

        auth = httpx2.BasicAuth(url.username, url.password)
        sent["Authorization"] = next(auth.auth_flow(httpx2.Request(method, url))).headers["Authorization"]
    target = httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
    limits = dict.fromkeys(("connect", "read", "write", "pool"), timeout)
    place = f"{url.scheme}://{url.host}{'' if url.port is None else f':{url.port}'}"
    try:
        with anyio.fail_after(timeout):
            async with (
                httpcore2.AsyncConnectionPool(ssl_context=tls, network_backend=_guard()) as pool,
                pool.stream(
                    method, target, headers=list(sent.items()), content=body, extensions={"timeout": limits}
                ) as answer,
            ):
                status, told = answer.status, answer.headers
    except _Refused as refused:
        raise PermanentError(f"{place}: {refused}; nothing is ever sent there") from None
    except TimeoutError:
        raise NotDelivered(f"{place} gave no answer within {timeout:g} s") from None
    except Exception as error:  # whatever a connection raises; its text may quote the server
        if isinstance(error, httpcore2.TimeoutException):
            raise NotDelivered(f"{place} gave no answer within {timeout:g} s") from None
        raise NotDelivered(f"{place} could not be reached: {_word(error)}") from None
    if not 200 <= status < 300:
        raise _judged(place, status, told)


def _word(error: BaseException) -> str:
    """What went wrong, without the server's own words: names of errors, and the system's text where there is one."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and inner.strerror:
            return f"{type(error).__name__}: {inner.strerror}"
        inner = inner.__cause__ or inner.__context__
    return type(error).__name__


def _judged(place: str, status: int, headers: Iterable[tuple[bytes, bytes]]) -> Exception:
    if status in _TOO_EARLY or status >= 500:
        pause = _pause(headers) if status in (429, 503) else None
        why = f"{place} answered {status}"
        return NotDelivered(why) if pause is None else RetryAfter(pause, why)
    why = "a redirect, and none is followed" if 300 <= status < 400 else "and will not take it"
    return PermanentError(f"{place} answered {status}: {why}")


def _pause(headers: Iterable[tuple[bytes, bytes]]) -> float | None:
    """The seconds of a Retry-After, bounded; None where there is none that can be read."""
    text = next((value.decode("latin-1") for name, value in headers if name.lower() == b"retry-after"), None)
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = (email.utils.parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError, OverflowError):
            return None
    return min(max(seconds, 1.0), _LONGEST_PAUSE) if math.isfinite(seconds) else None


class _Refused(Exception):
    pass


def _guard() -> Any:
    """A network backend that resolves a name once, checks every address, and connects to one that it has checked."""
    import httpcore2

    class Guard(httpcore2.AsyncNetworkBackend):
        def __init__(self) -> None:
            self._through: Any = httpcore2.AnyIOBackend()

        async def connect_tcp(self, host: str, port: int, *args: Any, **options: Any) -> Any:
            try:
                found = await anyio.getaddrinfo(host, port, type=_STREAM)
            except (OSError, UnicodeError) as error:
                raise httpcore2.ConnectError("the name cannot be resolved") from error
            addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
            for address in addresses:
                why = refusal(address)
                if why is not None:
                    raise _Refused(f"{address} is {why}")
            failed: Exception | None = None
            for address in addresses:
                try:
                    return await self._through.connect_tcp(address, port, *args, **options)
                except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                    failed = error
            raise failed or httpcore2.ConnectError("the name has no address")

    return Guard()


_STREAM = 1  # socket.SOCK_STREAM
