"""TensorRT engines: plan, build and isolate the builder."""
