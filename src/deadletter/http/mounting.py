"""Where the application is mounted, where its host does not say so."""

from __future__ import annotations

from urllib.parse import unquote

from starlette.types import Scope


def placed(scope: Scope) -> Scope:
    """The scope with path and root_path as ASGI has them.

    Litestar takes the path of a mount away without a word, so that routes would be missed and links lead elsewhere. What
    was asked for still stands in ``raw_path``.
    """
    raw, rest = scope.get("raw_path"), scope["path"].strip("/")
    if scope.get("root_path") or not isinstance(raw, bytes):
        return scope
    asked = unquote(raw.partition(b"?")[0].decode("latin-1"))
    bare = asked.rstrip("/")
    if bare.strip("/") == rest or not bare.endswith(f"/{rest}" if rest else ""):
        return scope
    return {**scope, "path": asked, "root_path": bare[: len(bare) - len(rest)].rstrip("/")}
