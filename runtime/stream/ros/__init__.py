"""Frames and cubes as messages of ROS 2, and bags of them; no ROS needs to be installed."""
