"""A chain whose runs are told to functions of the user's: as they start, end, and fail."""

import inspect
import logging
import traceback
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from batchord.chains.composition.derived import Derived
from batchord.chains.composition.function import takes_config
from batchord.chains.composition.runnable import Runnable
from batchord.chains.config import RunnableConfig, filled
from batchord.chains.explain import PutOff
from batchord.chains.runtime.loop_thread import in_thread

logger = logging.getLogger(__name__)

#: Takes the run, and the config if it has a parameter of that name; may be async.
Listener = Callable[..., Any]


@dataclass(frozen=True, kw_only=True)
class ListenedRun:
    """One run of a chain, for one input: the fields of LangChain's `Run` of the same names."""

    name: str
    #: The input if that is a dict, else `{"input": input}`.
    inputs: dict[str, Any]
    tags: list[str]
    metadata: dict[str, Any]
    id: uuid.UUID = field(default_factory=uuid.uuid4)
    run_type: str = "chain"
    start_time: datetime = field(default_factory=lambda: datetime.now(UTC))
    end_time: datetime | None = None
    #: The output if that is a dict, else `{"output": output}`; None until the chain has ended.
    outputs: dict[str, Any] | None = None
    #: The `repr` of the error, and its traceback; None unless the chain has failed.
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Listeners:
    """The functions to call at a run's start, end and error, or None."""

    on_start: Listener | None = None
    on_end: Listener | None = None
    on_error: Listener | None = None


class Listened(Derived):
    """The chain, and listeners that hear of each of its runs, where it runs.

    An error of a listener is logged and changes no output, as with LangChain's.
    """

    def __init__(self, chain: Runnable[Any, Any], listeners: Listeners) -> None:
        super().__init__(chain)
        self._listeners = listeners

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        told = filled(config)
        run = _begun(told.get("run_name") or self.name, input, told)
        await _tell(self._listeners.on_start, run, told)
        try:
            output = await self._chain.ainvoke(input, config, **kwargs)
        except PutOff:
            raise  # it has not failed: it begins again later
        except BaseException as error:
            trace = "".join(traceback.format_exception(error))
            failed = replace(run, end_time=datetime.now(UTC), error=f"{error!r}\n\n{trace}")
            await _tell(self._listeners.on_error, failed, told)
            raise
        outputs = output if isinstance(output, dict) else {"output": output}
        ended = replace(run, end_time=datetime.now(UTC), outputs=outputs)
        await _tell(self._listeners.on_end, ended, told)
        return output


def _begun(name: str, input: Any, config: RunnableConfig) -> ListenedRun:
    return ListenedRun(
        name=name,
        inputs=input if isinstance(input, dict) else {"input": input},
        tags=list(config.get("tags") or ()),
        metadata=dict(config.get("metadata") or {}),
        id=config.get("run_id") or uuid.uuid4(),
    )


async def _tell(listener: Listener | None, run: ListenedRun, config: RunnableConfig) -> None:
    if listener is None:
        return
    options = {"config": config} if takes_config(listener) else {}
    try:
        if inspect.iscoroutinefunction(listener):
            await listener(run, **options)
        else:
            await in_thread(listener, run, **options)
    except Exception:
        logger.exception("a listener of %s failed", run.name)
