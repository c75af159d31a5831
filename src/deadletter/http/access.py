"""Who may do what: tokens with a scope, a host application's own answer, or the loopback interface."""

from __future__ import annotations

import base64
import binascii
import enum
import hashlib
import hmac
import inspect
import ipaddress
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import attrs
from starlette.datastructures import Headers

from ..model.errors import InvalidSetting
from .problems import Problem

log = logging.getLogger("deadletter.http")

Authorize: TypeAlias = Callable[[Any], "str | Awaitable[str | None] | None"]
TokensLike: TypeAlias = "str | Mapping[str, Any] | Iterable[str | tuple[str, str]]"

CHALLENGES = {"WWW-Authenticate": 'Bearer realm="deadletter", Basic realm="deadletter", charset="UTF-8"'}
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
_IN_TESTS = "testclient"  # what Starlette's TestClient calls its peer; no socket has such an address
_TOKEN = re.compile(r"[\x21-\x7e]{1,1000}")
_LONGEST = 4096  # characters of an Authorization header


class Level(enum.IntEnum):
    """What somebody may do; each includes those before it."""

    READ = 1
    WRITE = 2
    ADMIN = 3

    @property
    def word(self) -> str:
        """As it is written in settings."""
        return self.name.lower()

    @classmethod
    def of(cls, word: object) -> Level | None:
        """The level that a word means."""
        return next((level for level in cls if level.word == word), None)


@attrs.frozen
class Grant:
    """What a request may do, and whose it is.

    Attributes:
        level: what it may do.
        holder: tells one token from another; never the token.
    """

    level: Level
    holder: str


class Tokens:
    """Tokens and their levels; only their hashes are kept.

    Args:
        given: ``"read:TOKEN,admin:TOKEN"``, a list of ``"read:TOKEN"`` or ``("read", "TOKEN")``, or a mapping of levels
            to tokens (one or several) or of tokens to levels.

    Raises:
        InvalidSetting: names the setting, and never shows a token.
    """

    def __init__(self, given: TokensLike, *, setting: str = "tokens") -> None:
        self._grants: list[tuple[bytes, Grant]] = []
        for word, token in _pairs(given, setting):
            level = Level.of(word)
            if level is None:
                raise InvalidSetting(setting, "a token has no scope; write read:TOKEN, write:TOKEN or admin:TOKEN")
            if not isinstance(token, str) or not _TOKEN.fullmatch(token):
                raise InvalidSetting(setting, f"a {word} token is no token; give 1-1000 printable characters, no space")
            digest = _digest(token)
            self._grants.append((digest, Grant(level, digest.hex()[:16])))
        if not self._grants:
            raise InvalidSetting(setting, "there is no token in it; write read:TOKEN, write:TOKEN or admin:TOKEN")

    def __repr__(self) -> str:
        return f"<Tokens: {', '.join(grant.level.word for _, grant in self._grants)}>"

    def grant(self, token: str) -> Grant | None:
        """What a token allows. Takes as long for any token: each is compared, by its hash."""
        digest = _digest(token)
        found: Grant | None = None
        for known, grant in self._grants:
            same = hmac.compare_digest(known, digest)
            if same and (found is None or grant.level > found.level):
                found = grant
        return found


@attrs.frozen
class Access:
    """Decides what a request may do.

    Attributes:
        tokens: None where there are none.
        authorize: the host application's answer to an ASGI scope; asked first.
    """

    tokens: Tokens | None = None
    authorize: Authorize | None = None

    async def grant(self, scope: Any) -> Grant:
        """What the request may do; raises Problem 401 or 403 where that is nothing."""
        if self.authorize is not None:
            word = await self._host_application(scope)
            level = Level.of(word)
            if level is not None:
                return Grant(level, f"host-{level.word}")
            if self.tokens is None:
                raise Problem(403, "this application does not let you in here; sign in to it")
        headers = Headers(scope=scope)
        if self.tokens is not None:
            token = _presented(headers)
            grant = self.tokens.grant(token) if token is not None else None
            if grant is None:
                said = "this token is not known here" if token is not None else "a token is needed"
                raise Problem(401, f"{said}; send it as Bearer, or as the password of Basic", headers=CHALLENGES)
            return grant
        if not _is_loopback(scope.get("client")):
            raise Problem(403, "without tokens only this machine is served; start with DEADLETTER_API_TOKENS")
        if any(name in headers for name in _FORWARDED):
            raise Problem(403, "this came through a proxy, and there are no tokens; start with DEADLETTER_API_TOKENS")
        return Grant(Level.ADMIN, "loopback")

    async def _host_application(self, scope: Any) -> object:
        assert self.authorize is not None  # noqa: S101 - asked before
        try:
            answer = self.authorize(scope)
            return await answer if inspect.isawaitable(answer) else answer
        except Exception:  # somebody else's code; who cannot be told is let in nowhere
            log.exception("authorize failed; the request is refused")
            return None


def _pairs(given: TokensLike, setting: str) -> Iterator[tuple[str, str]]:
    if isinstance(given, str):
        yield from (_pair(part) for part in given.split(",") if part.strip())
    elif isinstance(given, Mapping):
        by_level = all(Level.of(name) is not None for name in given)
        for name, value in given.items():
            several: Iterable[str] = [value] if isinstance(value, str) else value
            for one in several:
                yield (str(name), one) if by_level else (one, str(name))
    elif isinstance(given, Iterable):
        for entry in given:
            if not isinstance(entry, str) and not (isinstance(entry, Sequence) and len(entry) == 2):
                raise InvalidSetting(setting, "a token is neither read:TOKEN nor (read, TOKEN)")
            yield _pair(entry) if isinstance(entry, str) else (entry[0], entry[1])
    else:
        raise InvalidSetting(setting, f"{type(given).__name__} holds no tokens; write read:TOKEN,admin:TOKEN")


def _pair(text: str) -> tuple[str, str]:
    word, _, token = text.strip().partition(":")
    return word.strip(), token.strip()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()


def _presented(headers: Headers) -> str | None:
    """The token of a request: Bearer, or the password of Basic."""
    given = headers.getlist("authorization")
    if len(given) != 1 or len(given[0]) > _LONGEST:
        return None
    scheme, _, value = given[0].partition(" ")
    if scheme.lower() == "bearer":
        return value.strip() or None
    if scheme.lower() != "basic":
        return None
    try:
        plain = base64.b64decode(value.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    return plain.partition(":")[2] or None


def _is_loopback(client: Sequence[Any] | None) -> bool:
    host = str(client[0]) if client else ""
    if host == _IN_TESTS:
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
