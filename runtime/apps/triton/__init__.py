"""A model repository for the Triton Inference Server, the model that it runs, and the server on this machine."""
