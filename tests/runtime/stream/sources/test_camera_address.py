"""Addresses of industrial cameras: target and features."""

from __future__ import annotations

import pytest

from ccnet.contract import CCNetError
from ccnet.runtime.stream.sources.camera_address import CameraAddress


@pytest.mark.parametrize(
    ("text", "target", "features"),
    [
        ("genicam:", "", {}),
        ("genicam:/opt/a b/x.cti", "/opt/a b/x.cti", {}),
        ("aravis:fe80::1", "fe80::1", {}),
        (
            "genicam:x.cti?device=1&PixelFormat=RGB8&Name=a%26b",
            "x.cti",
            {"device": "1", "PixelFormat": "RGB8", "Name": "a&b"},
        ),
        ("aravis:?ExposureTime=1e+4", "", {"ExposureTime": "1e+4"}),
    ],
)
def test_address_has_a_target_and_features(text: str, target: str, features: dict[str, str]) -> None:
    assert CameraAddress.parse(text) == CameraAddress(text, target, features)


@pytest.mark.parametrize(
    "text", ["aravis:?PixelFormat", "genicam:x.cti?a=1&b", "genicam:x.cti?device=", "aravis:?=1", "aravis:?a=1&a=2"]
)
def test_feature_without_a_value_is_refused(text: str) -> None:
    with pytest.raises(CCNetError, match=r"expected NAME=VALUE&NAME=VALUE after the '\?'"):
        CameraAddress.parse(text)
