"""Steps one after the other."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from batchord.chains.composition.as_runnable import coerce
from batchord.chains.composition.runnable import Runnable
from batchord.chains.config import RunnableConfig
from batchord.chains.errors import set_step, step_of
from batchord.chains.runtime.item_context import at


class Sequence(Runnable[Any, Any]):
    """Steps one after the other: the output of each is the input of the next.

    `steps` is anything that `coerce` takes. A step whose name is not the only one of its kind is
    named with its place in errors: `Lambda#2` is the second step. For a typed chain use `|`.
    """

    def __init__(self, steps: Iterable[Any], *, name: str | None = None) -> None:
        super().__init__(name=name)
        flat: list[Runnable[Any, Any]] = []
        for step in map(coerce, steps):
            flat.extend(step.steps if isinstance(step, Sequence) else [step])
        if not flat:
            raise ValueError("a sequence needs at least one step")
        self.steps: tuple[Runnable[Any, Any], ...] = tuple(flat)
        times = Counter(step.name for step in flat)
        #: The steps, and how errors name them.
        self.labelled = [
            (f"{step.name}#{place}" if times[step.name] > 1 else step.name, step)
            for place, step in enumerate(flat, 1)
        ]

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return await through(self.labelled, input, config, **kwargs)

    def fingerprint(self) -> Any:
        return [step.fingerprint() for step in self.steps]

    def children(self) -> Iterable[Runnable[Any, Any]]:
        return self.steps

    def plain(self, output: Any) -> Any:
        return self.steps[-1].plain(output)


async def through(
    steps: Iterable[tuple[str, Runnable[Any, Any]]],
    value: Any,
    config: RunnableConfig | None = None,
    **kwargs: Any,
) -> Any:
    """Run the value through the steps, each with its label; return what the last one gives."""
    for label, step in steps:
        try:
            with at(label):
                value = await step.ainvoke(value, config, **kwargs)
        except Exception as error:
            # Unless a branch within it has said so.
            if step_of(error) in (None, step.name):
                set_step(error, label)
            raise
        kwargs = {}  # they are for the first step
    return value
