"""The callbacks of a remote call, which stay in the calling process."""

from collections.abc import Sequence
from typing import Any, cast

from batchord.chains.config import RunnableConfig, config_list, max_concurrency
from batchord.ledger.models import Item


class CallerRuns:
    """The runs of a remote batch, one for each input, as the caller's callbacks see them.

    This one has no callbacks; a config that has some is refused as it is submitted.
    """

    def __init__(
        self,
        name: str,
        inputs: Sequence[Any],
        config: RunnableConfig | Sequence[RunnableConfig] | None,
    ) -> None:
        self.name = name
        self.inputs = inputs
        #: One for each input, or one for all: what the workers are told.
        self.config = config
        self.max_concurrency = max_concurrency(config_list(config, len(inputs))[0])

    @classmethod
    def captured(cls, config: RunnableConfig | None) -> RunnableConfig:
        """Return the config of a single call with all that its context adds to it."""
        [one] = config_list(config, 1)
        return cast(RunnableConfig, {**one, "max_concurrency": None})

    async def begin(self) -> None:
        """Tell of the start of each run."""

    async def succeeded(self, item: Item, output: Any) -> None:
        """Tell of what an item has used, and of its output."""

    async def failed(self, item: Item, error: BaseException) -> None:
        """Tell of what an item has used, and of its error."""

    async def give_up(self, error: BaseException) -> None:
        """Tell the runs that have not ended of the error that ended the wait for them."""
