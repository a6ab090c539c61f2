"""One-machine mode: the embedded server, a local model, and their processes."""
