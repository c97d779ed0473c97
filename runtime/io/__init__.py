"""Files and arrays in and out: frames, cubes, colour spaces and raw sensors."""
