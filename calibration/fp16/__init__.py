"""FP16: ranges, bounds, emulation and bisection of the error."""
