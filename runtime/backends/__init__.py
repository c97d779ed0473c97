"""Run graphs and engines: one backend a file, and the choice among them."""
