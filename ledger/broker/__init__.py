"""Celery on Redis: the app, the transport, the chord backend, publishing."""
