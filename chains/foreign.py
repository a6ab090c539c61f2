"""Anything that has `invoke` or `ainvoke` as a step: a LangChain Runnable, say."""

import inspect
from typing import Any

from chains import provider
from chains.config import RunnableConfig
from chains.function import takes_config
from chains.loop import in_thread
from chains.runnable import Step


def is_foreign(value: Any) -> bool:
    """Whether it can be called through `ainvoke` or `invoke`. A class cannot: give an instance."""
    if isinstance(value, type):
        return False
    return callable(getattr(value, "ainvoke", None)) or callable(getattr(value, "invoke", None))


class Foreign(Step[Any, Any]):
    """The object as one step: `ainvoke` if it has that, else `invoke` in a thread.

    The config is handed on if the method has a parameter of this name. However many calls the
    object makes inside, it is one call to `max_concurrency`. Its own `batch` is never used.
    """

    takes_options = True

    def __init__(self, target: Any, name: str | None = None) -> None:
        if not is_foreign(target):
            raise TypeError(
                f"neither invoke nor ainvoke can be called on {type(target).__name__}"
                + (": give an instance, not the class" if isinstance(target, type) else "")
            )
        own = getattr(target, "name", None)
        super().__init__(
            name=name or (own if isinstance(own, str) and own else type(target).__name__)
        )
        ainvoke = getattr(target, "ainvoke", None)
        self._is_async = callable(ainvoke)
        self._call = ainvoke if callable(ainvoke) else target.invoke
        self._takes_config = takes_config(self._call)

    async def _run(self, input: Any, config: RunnableConfig, **options: Any) -> Any:
        if self._takes_config:
            options.setdefault("config", config or None)
        if self._is_async:
            output = self._call(input, **options)
        else:
            output = await in_thread(self._call, input, **options)
        output = await output if inspect.isawaitable(output) else output
        _raise_broken(output)
        return output


def _raise_broken(output: Any) -> None:
    """Raise if it is a message of LangChain's that says it broke off with an error."""
    said = getattr(output, "response_metadata", None)
    finish = said.get("finish_reason") if isinstance(said, dict) else None
    if isinstance(finish, str):
        message = {"content": getattr(output, "content", None)}
        provider.raise_fault({"choices": [{"finish_reason": finish, "message": message}]})
