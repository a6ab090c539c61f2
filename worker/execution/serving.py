"""The formats and chains that a worker serves; messages of other batches are put apart."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any, Final

from batchord.chains import ChainNotFound, registered
from batchord.ledger.core.message_ids import GATHER, RUN_ITEMS
from batchord.ledger.core.package_version import package_version
from batchord.ledger.needs import FORMATS, HEADER, Needs
from batchord.ledger.settings import Settings
from batchord.ledger.storage.fleet import Beat, served_here

logger = logging.getLogger(__name__)

#: The tasks of batches; a queue may have others.
_OURS: Final = (RUN_ITEMS, GATHER)


def check_chains_only(names: Iterable[str]) -> None:
    """Check the names of `Settings.chains_only`, once the modules of chains are imported.

    Raises:
        ChainNotFound: no chain is registered under one of them.
    """
    known = registered()
    for name in names:
        if name not in known:
            raise ChainNotFound(name, known)


class Serving:
    """The formats and chains of this worker, as they were when it started."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.beat = Beat()
        #: Whether this worker serves what needs this.
        self._known: dict[Needs, bool] = {}
        #: What needs of messages that were put apart are not in the ledger yet.
        self.noted: set[Needs] = set()

    def start(self, name: str) -> None:
        """Take up what is registered in this process; `name`: Celery's name of the worker."""
        self.beat = Beat(
            name=name,
            version=package_version(),
            formats=FORMATS,
            pool=self._settings.pool,
            chains=served_here(self._settings.chains_only),
        )

    def serves(self, needs: Needs) -> bool:
        """Whether this worker works on what needs this."""
        if needs not in self._known:
            self._known[needs] = self.beat.serves(needs)
        return self._known[needs]

    def queue_for(self, message: Mapping[str, Any], queue: str) -> str | None:
        """Return the queue to put a message from `queue` into; None: it is ours.

        What comes from the queue of what needs the same is taken: no message goes in circles.
        """
        headers = message["headers"]
        if headers.get("task") not in _OURS:
            return None
        needs = Needs.read(headers.get(HEADER))
        if self.serves(needs) or (where := needs.queue(self._settings.queue)) == queue:
            return None
        self.noted.add(needs)
        # Its batch is in its id.
        logger.info("message put apart task=%s queue=%s: not served here", headers.get("id"), where)
        return where
