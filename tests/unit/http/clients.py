"""Clients of an application, without a network."""

from __future__ import annotations

from typing import Any

import httpx2

SECRET = "hunter2-and-more"
TOKENS = {"read": "r-token-0001", "write": "w-token-0002", "admin": "a-token-0003"}


def client_of(app: Any, *, token: str | None = None, peer: str = "127.0.0.1", **options: Any) -> httpx2.AsyncClient:
    headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
    headers |= options.pop("headers", {})
    transport = httpx2.ASGITransport(app, client=(peer, 40_000), raise_app_exceptions=False, **options)
    return httpx2.AsyncClient(transport=transport, base_url="http://localhost:5002", headers=headers)
