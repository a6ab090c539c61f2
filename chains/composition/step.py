"""The base of steps: work of a chain's own, retried and kept for an item's next attempt."""

import json
from abc import abstractmethod
from typing import Any, ClassVar

from batchord.chains.composition.runnable import In, Out, Runnable
from batchord.chains.config import RunnableConfig
from batchord.chains.errors import set_step
from batchord.chains.runtime.checkpoints import Worded, dump_plain
from batchord.chains.runtime.concurrency import current_gate, permit
from batchord.chains.runtime.durable_step import once
from batchord.chains.runtime.retry import RetryPolicy


class Step(Runnable[In, Out]):
    """A step that does work of its own, in `_run`, and is what an error names.

    Between two attempts, as `retry` allows them, it holds none of the batch's permits.
    """

    #: Whether it is a call that `max_concurrency` bounds.
    is_call: ClassVar[bool] = True
    #: Whether `_run` takes keyword arguments.
    takes_options: ClassVar[bool] = False

    def __init__(self, *, name: str | None = None, retry: RetryPolicy | None = None) -> None:
        super().__init__(name=name)
        self.retry = retry

    @property
    def paid(self) -> bool:
        """Whether its output is paid for: the item's next attempt has it, however fast it was."""
        return False

    @abstractmethod
    async def _run(self, input: In, config: RunnableConfig, **options: Any) -> Out:
        """Make one attempt."""

    async def ainvoke(self, input: In, config: RunnableConfig | None = None, **kwargs: Any) -> Out:
        if kwargs and not self.takes_options:
            raise TypeError(f"{self.name} takes no keyword arguments, got {', '.join(kwargs)}")

        async def attempt() -> Out:
            if not self.is_call or current_gate() is None:
                return await self._run(input, config or {}, **kwargs)
            async with permit():
                return await self._run(input, config or {}, **kwargs)

        try:
            output: Any = await once(self, input, kwargs, attempt)
        except Exception as error:
            set_step(error, self.name)
            raise
        value: Out = output.value if isinstance(output, Worded) else output
        return value

    def dump(self, output: Any) -> str | None:
        """Serialize an output to JSON that `load` reads back unchanged, or return None."""
        return dump_plain(output)

    def load(self, text: str) -> Any:
        """Parse an output that `dump` has written; ValueError if it is not of this step."""
        return json.loads(text)
