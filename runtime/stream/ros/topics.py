"""The topics of cubes: the whole cube, its colours, and single bands, as images of ROS."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ccnet.contract import BANDS_NM, CCNetError
from ccnet.runtime.viz.render import render

from .images import ImageFields, image_fields

Array = npt.NDArray[np.float32]

DEFAULT_TOPICS = "cube,preview"

WAVELENGTHS_TOPIC = "/ccnet/wavelengths"
"""Topic of the wavelengths of the cube's channels in nm, a ``std_msgs/msg/Float32MultiArray``."""

_MAX_DATA_BYTES = (1 << 32) - 1
"""Largest ``data`` of a message, bytes: ROS counts them with 32 bits."""


def parse_topics(text: str) -> tuple[str, ...]:
    """Return the images that a list names.

    Args:
        text: ``cube``, ``preview`` and wavelengths of bands in nm, with commas between them, such as ``preview,550``.

    Returns:
        The names, each once.

    Raises:
        CCNetError: A name is none of these.
    """
    names = tuple(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in ("cube", "preview") and not (re.fullmatch(r"\d{3}", name) and int(name) in BANDS_NM):
            raise CCNetError(
                f"topics are {text!r}, expected cube, preview and wavelengths from {BANDS_NM[0]} to {BANDS_NM[-1]} nm "
                f"in steps of 10, such as topics={DEFAULT_TOPICS},550"
            )
    return names


def topic_name(name: str) -> str:
    """Return the topic of an image: ``/ccnet/cube``, ``/ccnet/preview`` or ``/ccnet/band_550``."""
    return f"/ccnet/{name}" if name in ("cube", "preview") else f"/ccnet/band_{name}"


class TopicImages:
    """A CubeWriter that collects the images of a cube's topics from its parts; only these images are in memory."""

    def __init__(self, names: Sequence[str], height: int, width: int) -> None:
        """Allocate the images.

        Args:
            names: Images to collect, see ``parse_topics``.
            height: Rows.
            width: Columns.

        Raises:
            CCNetError: An image is larger than a message of ROS can be.
        """
        self._images: dict[str, npt.NDArray[np.float32 | np.uint8]] = {}
        for name in names:
            channels = {"cube": len(BANDS_NM), "preview": 3}.get(name, 1)
            dtype = np.dtype(np.uint8 if name == "preview" else np.float32)
            if height * width * channels * dtype.itemsize > _MAX_DATA_BYTES:
                raise CCNetError(
                    f"{topic_name(name)}: {width}×{height} px are more than a message's 4 GB; choose topics=preview,550"
                )
            self._images[name] = np.empty((height, width, channels), dtype)

    def write(self, top: int, part: Array, left: int = 0) -> None:
        """Store a part (31, h, w) of a cube, from row ``top`` and column ``left`` on."""
        place = np.s_[top : top + part.shape[1], left : left + part.shape[2]]
        for name, image in self._images.items():
            if name == "cube":
                image[place] = part.transpose(1, 2, 0)
            elif name == "preview":
                image[place] = render(part)
            else:
                image[place][..., 0] = part[BANDS_NM.index(int(name))]

    def fields(self) -> dict[str, ImageFields]:
        """Return name of the image → fields of its message; the data are the images' memory."""
        return {name: image_fields(image) for name, image in self._images.items()}
