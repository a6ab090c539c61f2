"""Run an item: the event loop, its context, deadlines, retries and checkpoints."""
