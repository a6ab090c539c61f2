"""For apps: submit batches and read their results."""

from producer.batch import Batch
from producer.client import Client
from producer.estimate import Estimate
from producer.remote import RemoteRunnable
from producer.stream import Stream

__all__ = ["Batch", "Client", "Estimate", "RemoteRunnable", "Stream"]
