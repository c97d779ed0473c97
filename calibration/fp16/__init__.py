"""FP16: ranges of tensors, bounds for any frame, emulation of its rounding, and bisection of its error."""
