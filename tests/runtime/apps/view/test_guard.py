"""The guard answers requests to names of this machine; on an address for others, requests with the token."""

from __future__ import annotations

from typing import Any

import pytest

from ccnet.runtime.apps.view.scene import Scene
from tests.runtime.io.cube_files import cube_of

from .scenes import client, shown

WORD = "secret-token"


def local(token: str | None = None, host: str = "127.0.0.1") -> Any:
    return client(Scene([shown(cube_of())]), token=token, host=host)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST", "[::1]"])
def test_names_of_this_machine_are_answered(host: str) -> None:
    assert local(host=host).get("/api/scene").status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "192.168.0.7", "localhost.evil.example"])
def test_other_names_are_refused(host: str) -> None:
    """A site that leads its own name to 127.0.0.1 (DNS rebinding) reads nothing."""
    answer = local(host=host).get("/api/scene")
    assert answer.status_code == 403
    assert "cubes" not in answer.text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_only_reading_is_allowed(method: str) -> None:
    assert local().request(method, "/api/scene").status_code == 405


def test_token_opens_the_page_once_and_a_cookie_after_that() -> None:
    http = local(token=WORD, host="192.168.0.7")
    for path in ("/", "/api/scene", "/main.js", "/?token=", "/?token=wrong", "/api/scene?token=secret-token"):
        assert http.get(path).status_code == 403, path
    answer = http.get("/?token=secret-token")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert http.get("/api/scene").status_code == 200  # the client keeps the cookie
    assert http.get("/api/scene", headers={"host": "evil.example"}).status_code == 403


@pytest.mark.parametrize("cookie", ["ccnet-view-8031=wrong", "ccnet-view-8031", "; ;=", "other=secret-token"])
def test_wrong_cookie_is_refused(cookie: str) -> None:
    assert local(token=WORD).get("/", headers={"cookie": cookie}).status_code == 403
