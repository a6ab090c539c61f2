"""For apps: submit batches and read their results."""

from batchord.producer.batch import Batch
from batchord.producer.client import Client
from batchord.producer.estimate import Estimate
from batchord.producer.page_stream import Stream
from batchord.producer.remote import RemoteRunnable

__all__ = ["Batch", "Client", "Estimate", "RemoteRunnable", "Stream"]
