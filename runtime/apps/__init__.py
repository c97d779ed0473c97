"""Applications that put the runtime to work: a server of frames, surveys of archives, viewers."""
