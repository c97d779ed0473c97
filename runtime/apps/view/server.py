"""The server of the page: its address, and uvicorn in this thread or beside another program."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import secrets
import socket
import threading
from typing import Any

from ccnet.contract import CCNetError, Closeable
from ccnet.runtime.io.files import optional_module

from .guard import LOCAL_NAMES, Guard
from .scene import Scene
from .web import build_app

_STOP_TIMEOUT_S = 3.0


class ViewServer(Closeable):
    """A server that is bound and not running yet. Use it in ``with``.

    Attributes:
        url: Address for a browser, with the token where there is one.
    """

    def __init__(self, scene: Scene, port: int, host: str = LOCAL_NAMES[1]) -> None:
        """Bind the server.

        Args:
            scene: The cubes.
            port: Port; 0 for any that is free.
            host: Address or name to bind; other machines can reach any but the loopback's, so it gets a token.

        Raises:
            CCNetError: The address cannot be bound, or a library is not installed.
        """
        app = build_app(scene)
        uvicorn = optional_module("uvicorn", "view")
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
        self._socket = _bind(host, port)
        port = self._socket.getsockname()[1]
        self._token = None if _is_loopback(host) else secrets.token_urlsafe(24)
        names = {*LOCAL_NAMES, host, *(() if self._token is None else (socket.gethostname(),))}
        guard = Guard(app, names=names, token=self._token, port=port)
        options: dict[str, Any] = {"log_config": None, "access_log": False, "server_header": False, "lifespan": "off"}
        self._server = uvicorn.Server(uvicorn.Config(guard, timeout_graceful_shutdown=1, ws="none", **options))
        self._thread: threading.Thread | None = None
        shown = socket.gethostname() if host in ("0.0.0.0", "::", "") else host  # noqa: S104 - shown, not bound
        self.url = f"http://{f'[{shown}]' if ':' in shown else shown}:{port}/"
        if self._token is not None:
            self.url += f"?token={self._token}"

    def run(self) -> None:
        """Serve until the process gets SIGINT or SIGTERM; the first of them ends it without a traceback."""
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises the signal again once it has stopped
            self._server.run(sockets=[self._socket])

    def start(self) -> None:
        """Serve in a thread until ``close``."""
        self._thread = threading.Thread(target=self.run, daemon=True, name="ccnet-view")
        self._thread.start()

    def close(self) -> None:
        """Stop serving and free the port."""
        self._server.should_exit = True
        if self._thread:
            self._thread.join(_STOP_TIMEOUT_S)
        self._socket.close()


def _bind(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        bound = socket.create_server((host, port), family=family)
        # asyncio does so for sockets that it makes itself; without, a short answer waits 40 ms for the one before it
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return bound
    except (OSError, OverflowError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise CCNetError(f"{host} port {port}: cannot be bound ({why}); choose another --port or --host") from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
