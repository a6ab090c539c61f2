"""All that the endpoints share: the ledger, the file store, the keys."""

from batchord.chains.steps.raw_request import register_requests
from batchord.gateway.keys import Keys
from batchord.ledger.broker.celery_app import create_app
from batchord.ledger.lifecycle.batch_control import BatchControl
from batchord.ledger.settings import Settings
from batchord.ledger.storage.api_batches import ApiBatches
from batchord.ledger.storage.api_files import ApiFiles
from batchord.ledger.storage.batch_reader import BatchReader
from batchord.ledger.storage.batch_store import BatchStore
from batchord.ledger.storage.day_budgets import DayBudgets
from batchord.ledger.storage.file_store import file_store


class Backend:
    """The server's connections, safe to share between threads. Connects at its first call."""

    def __init__(self, settings: Settings, keys: Keys) -> None:
        # A line may be longer than an input of an app's own: pictures come as base64.
        self.settings = settings.model_copy(
            update={
                "max_input_bytes": max(settings.max_input_bytes, settings.file_line_bytes),
            }
        )
        self.keys = keys
        self.store = BatchStore(self.settings)
        self.reader = BatchReader(self.store)
        self.app = create_app(self.settings)
        self.control = BatchControl(self.app, self.store)
        self.day_budgets = DayBudgets(self.store)
        self.files = ApiFiles(self.store)
        self.batches = ApiBatches(self.store)
        self.bytes = file_store(self.settings)
        register_requests()

    def check(self) -> None:
        """Raise unless Redis and the file store can be used now."""
        self.store.ping()
        self.bytes.check()

    def start(self) -> None:
        """Let the tenants' bounds of the day hold, also for batches that run by now."""
        for tenant in self.keys.tenants.values():
            self.day_budgets.set(tenant.name, tenant.budget_usd_per_day)

    def close(self) -> None:
        """Close the connections."""
        self.store.close()
        self.app.close()
