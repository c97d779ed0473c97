"""A second opinion on bags: the library of the MCAP format reads those of a stream, and writes those of a source."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from mcap_ros2.writer import Writer

from ccnet.runtime.stream.sinks import open_sink
from ccnet.runtime.stream.sources.parse import parse_source
from tests.runtime.stream.ros.bags import IMAGE, TYPES

CUBE = np.random.default_rng(0).random((31, 24, 40), np.float32)


def test_library_of_mcap_reads_the_cubes(tmp_path: Path) -> None:
    sink = open_sink(f"rosbag:{tmp_path}/drive?topics=cube")
    for second in range(2):
        with sink.cube(None, 24, 40, {"captured": f"1970-01-01T00:00:0{second}.000000007+00:00"}) as writer:
            writer.write(0, CUBE * (1 + second))
    sink.close()
    with (tmp_path / "drive/drive_0.mcap").open("rb") as file:
        reader = make_reader(file, validate_crcs=True, decoder_factories=[DecoderFactory()])
        found = [(message.log_time, decoded) for _, _, message, decoded in reader.iter_decoded_messages("/ccnet/cube")]
        ((_, _, _, wavelengths),) = reader.iter_decoded_messages("/ccnet/wavelengths")
    assert list(wavelengths.data) == list(range(400, 701, 10))
    for second, (time_ns, message) in enumerate(found):
        assert time_ns == second * 10**9 + 7 and message.header.stamp.sec == second
        values = np.frombuffer(message.data, np.float32).reshape(24, 40, 31).transpose(2, 0, 1)
        np.testing.assert_array_equal(values, CUBE * (1 + second))
    assert len(found) == 2


def test_compressed_chunks_of_another_writer_are_read(tmp_path: Path) -> None:
    """Files that ROS 2 did not write have neither a folder nor metadata.yaml."""
    frames = np.random.default_rng(0).integers(0, 256, (3, 24, 32, 3), np.uint8)
    path = tmp_path / "recording.mcap"
    definition, _ = TYPES.generate_msgdef(IMAGE, ros_version=2)
    with path.open("wb") as file:
        writer = Writer(file, chunk_size=3000)
        schema = writer.register_msgdef("sensor_msgs/msg/Image", definition)
        for number, pixels in enumerate(frames):
            fields = {"height": 24, "width": 32, "encoding": "rgb8", "is_bigendian": 0, "step": 96}
            header = {"stamp": {"sec": 5, "nanosec": number}, "frame_id": "left"}
            message = {"header": header, **fields, "data": pixels.tobytes()}
            writer.write_message("/camera", schema, message, log_time=number)
        writer.finish()
    with closing(parse_source(str(path)).open()) as source:
        assert source.expected == 3
        for number, pixels in enumerate(frames):
            np.testing.assert_array_equal(source.read()[1], pixels)
            assert source.frame_metadata["captured"] == f"1970-01-01T00:00:05.00000000{number}+00:00"
        assert source.read() is None
