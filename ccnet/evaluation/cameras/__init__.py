"""Studies of frames that are not the benchmark camera's: measured cameras, and photographs."""
