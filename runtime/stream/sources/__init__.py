"""Sources of a stream's frames: cameras, videos, pictures, raw video on stdin."""
