"""Chains with exactly one request, which a provider's Batch API can run.

The request is built and its answer is read hours apart, maybe in two processes.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence as Steps
from typing import Any, ClassVar, NamedTuple

from batchord.chains.composition.function import Lambda
from batchord.chains.composition.parallel import Parallel
from batchord.chains.composition.runnable import Runnable
from batchord.chains.composition.sequence import Sequence, through
from batchord.chains.config import RunnableConfig
from batchord.chains.errors import BatchordError, set_step
from batchord.chains.steps.prompt import Prompt


class NotOffline(BatchordError):
    """The chain cannot go through a provider's Batch API; the message says why."""


class OfflineCall(ABC):
    """A step that is one call of a provider, taken apart: its request, and what its answer is."""

    #: The path of its URL, with `/v1`.
    endpoint: ClassVar[str]

    @abstractmethod
    def request(self, input: Any) -> dict[str, Any]:
        """Build the body of the request for this input; raise the errors that the step raises."""

    @abstractmethod
    def read(self, body: Any) -> Any:
        """Convert the body of an answer to the output; raise the errors that the step raises."""

    @abstractmethod
    def asked_for(self) -> str:
        """Return the model that its requests name."""

    def why_not_offline(self) -> str | None:
        """Why its requests cannot be lines of a file; None: they can."""
        return None


class Offline(NamedTuple):
    """A chain around its one call; the steps before and after it run here."""

    call: OfflineCall
    before: Steps[tuple[str, Runnable[Any, Any]]] = ()
    #: How errors name the call.
    label: str = ""
    after: Steps[tuple[str, Runnable[Any, Any]]] = ()

    async def request(self, input: Any, config: RunnableConfig | None = None) -> dict[str, Any]:
        """Run the steps before the call and build the body of its request."""
        value = await through(self.before, input, config)
        try:
            return self.call.request(value)
        except Exception as error:
            set_step(error, self.label)
            raise

    async def output(self, body: Any, config: RunnableConfig | None = None) -> Any:
        """Read an answer's body, run the steps after the call and return the chain's output."""
        try:
            value = self.call.read(body)
        except Exception as error:
            set_step(error, self.label)
            raise
        return await through(self.after, value, config)


def offline(chain: Runnable[Any, Any]) -> Offline:
    """Split a chain around its only call.

    Raises:
        NotOffline: it is not exactly one call, with prompts and functions before and after it.
    """
    steps = chain.labelled if isinstance(chain, Sequence) else [(chain.name, chain)]
    found = []
    for place, (label, step) in enumerate(steps):
        if isinstance(step, OfflineCall):
            found.append(Offline(step, steps[:place], label, steps[place + 1 :]))
        elif not _is_pure(step):
            raise NotOffline(
                f"its step {label} is neither a prompt nor a function, and not a Chat, Responses "
                "or Embed by itself"
            )
    if not found:
        raise NotOffline("it has no step that is a Chat, Responses or Embed")
    if len(found) > 1:
        raise NotOffline(f"it makes {len(found)} calls one after the other, and may make one")
    if (why := found[0].call.why_not_offline()) is not None:
        raise NotOffline(why)
    return found[0]


def why_not_offline(chain: Runnable[Any, Any]) -> str | None:
    """Why the chain cannot go through a provider's Batch API; None: it can."""
    try:
        offline(chain)
    except NotOffline as error:
        return str(error)
    return None


def _is_pure(step: Runnable[Any, Any]) -> bool:
    """Whether the step calls no model, as far as can be seen."""
    match step:
        case Prompt() | Lambda():
            return True
        case Sequence():
            return all(map(_is_pure, step.steps))
        case Parallel():
            return all(map(_is_pure, step.branches.values()))
    return False
