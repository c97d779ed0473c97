"""TensorRT engines: plan them, build them, and isolate the builder in a process of its own."""
