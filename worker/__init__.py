"""For machines: the Celery tasks, the sweep, and the supervisor of worker processes."""
