"""Deliver the outbox: callbacks and webhooks."""
