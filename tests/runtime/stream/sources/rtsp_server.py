"""An RTSP server (JPEG over RTP) of grey frames whose levels count, for the system's Python: rtsp_server.py PORT.

It needs Debian's gir1.2-gst-rtsp-server-1.0, python3-gst-1.0 and gstreamer1.0-plugins-good. Each client gets a
sequence of its own, from level 16 on in steps of 8, at 25 frames a second.
"""

from __future__ import annotations

import sys
from typing import Any

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402 - after the versions

WIDTH, HEIGHT, RATE = 64, 48, 25
PIPELINE = (
    f"( appsrc name=frames is-live=true format=time caps=video/x-raw,format=I420,width={WIDTH},height={HEIGHT},"
    f"framerate={RATE}/1 ! jpegenc ! rtpjpegpay name=pay0 )"
)


class GreyFrames(GstRtspServer.RTSPMediaFactory):  # type: ignore[misc]
    """Makes the pipeline of a client."""

    def __init__(self) -> None:
        super().__init__()
        self.set_launch(PIPELINE)
        self.connect("media-configure", self._configure)

    def _configure(self, _: Any, media: Any) -> None:
        source, count = media.get_element().get_by_name("frames"), iter(range(1 << 30))

        def push(*_: Any) -> None:
            number = next(count)
            level = 16 + 8 * (number % 25)
            buffer = Gst.Buffer.new_wrapped(bytes([level]) * (WIDTH * HEIGHT) + bytes([128]) * (WIDTH * HEIGHT // 2))
            buffer.pts = number * Gst.SECOND // RATE
            buffer.duration = Gst.SECOND // RATE
            source.emit("push-buffer", buffer)

        source.connect("need-data", push)


def main() -> None:
    Gst.init(None)
    server = GstRtspServer.RTSPServer(service=sys.argv[1], address="127.0.0.1")
    server.get_mount_points().add_factory("/grey", GreyFrames())
    server.attach(None)
    print("ready", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
