"""The guard in front of the page: which requests it answers.

A page of another site can make a browser send requests here, under a name of its own that leads to this machine (DNS
rebinding). So the header Host must be a number or a name that this server goes by, and an address that other machines
can reach needs a token.
"""

from __future__ import annotations

import ipaddress
import json
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[Any]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_App = Callable[[_Scope, _Receive, _Send], Awaitable[None]]

_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


class Guard:
    """An ASGI application that passes on GET and HEAD with a known Host and, where there is a token, with the token.

    The first request has the token in its query; the answer moves it into a cookie, which scripts cannot read.
    """

    def __init__(self, app: _App, *, names: Iterable[str], token: str | None, port: int) -> None:
        self._app, self._token, self._cookie = app, token, f"ccnet-view-{port}"
        self._names = {name.lower() for name in names}

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", []),
                    *((name.encode(), value.encode()) for name, value in _HEADERS.items()),
                ]
            await send(message)

        if scope["method"] not in ("GET", "HEAD"):
            await _answer(send_with_headers, 405, f"{scope['method']} is not allowed, expected GET")
        elif not self._knows_host(headers.get("host", "")):
            await _answer(
                send_with_headers, 403, "the name of this server is not that, expected localhost or its address"
            )
        elif self._token is None or self._has_cookie(headers.get("cookie", "")):
            await self._app(scope, receive, send_with_headers)
        elif self._has_query(scope):
            cookie = f"{self._cookie}={self._token}; HttpOnly; SameSite=Strict; Path=/"
            await _answer(send_with_headers, 303, "see /", {"location": "/", "set-cookie": cookie})
        else:
            await _answer(
                send_with_headers, 403, "the token is missing or wrong; open the address that the program printed"
            )

    def _knows_host(self, host: str) -> bool:
        name = host.lower()
        name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self._token is not None  # a number is no name that could lead elsewhere

    def _has_cookie(self, text: str) -> bool:
        cookies: SimpleCookie = SimpleCookie()
        try:
            cookies.load(text)
        except CookieError:
            return False
        return self._cookie in cookies and self._is_token(cookies[self._cookie].value)

    def _has_query(self, scope: _Scope) -> bool:
        query = parse_qs(scope["query_string"].decode("latin-1"))
        return scope["path"] == "/" and self._is_token(query.get("token", [""])[0])

    def _is_token(self, text: str) -> bool:
        return self._token is not None and secrets.compare_digest(text.encode(), self._token.encode())


async def _answer(send: _Send, status: int, text: str, headers: dict[str, str] | None = None) -> None:
    body = json.dumps({"error": text}).encode()
    fields = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
    start = {"type": "http.response.start", "status": status}
    await send({**start, "headers": [(name.encode(), value.encode()) for name, value in fields.items()]})
    await send({"type": "http.response.body", "body": body})
