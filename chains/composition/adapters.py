"""Anything that has `invoke` or `ainvoke` as a step: a LangChain Runnable, say."""

import inspect
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from batchord.chains.composition.foreign_calls import ProviderFailed, guarded
from batchord.chains.composition.function import takes_config
from batchord.chains.composition.langchain_providers import Provider, provider_of, unseen
from batchord.chains.composition.step import Step
from batchord.chains.config import RunnableConfig, filled
from batchord.chains.explain import set_path
from batchord.chains.langchain import inspection
from batchord.chains.openai import client
from batchord.chains.runtime.item_context import current_run, place
from batchord.chains.runtime.loop_thread import in_thread

_INNER = "_batchord_inner"


def is_foreign(value: Any) -> bool:
    """Whether it can be called through `ainvoke` or `invoke`. A class cannot: give an instance."""
    if isinstance(value, type):
        return False
    return callable(getattr(value, "ainvoke", None)) or callable(getattr(value, "invoke", None))


class Adapter(Step[Any, Any]):
    """The object as one step: `ainvoke` if it has that, else `invoke` in a thread.

    `invoke` is also called where `ainvoke` only says that it is not implemented. The config is
    handed on, filled, if the method has a parameter of this name. However many calls the object
    makes inside, it is one call to `max_concurrency`. Its own `batch` is never used.

    Of a LangChain Runnable that runs for an item of a submitted batch, the usage of its models is
    counted, and an error names the inner step.
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
        self.target = target
        self._is_async = callable(getattr(target, "ainvoke", None)) and not (
            callable(getattr(target, "invoke", None)) and inspection.is_sync_only(target)
        )
        methods = (getattr(target, name, None) for name in ("ainvoke", "invoke"))
        self._take_config = [callable(method) and takes_config(method) for method in methods]

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        try:
            return await super().ainvoke(input, config, **kwargs)
        except Exception as error:
            original = error.original if isinstance(error, ProviderFailed) else error
            inner = getattr(original, _INNER, None)
            if inner or original is not error:
                set_path(original, inner or [self.name])
            if original is not error:
                raise original from original.__cause__
            raise

    @property
    def paid(self) -> bool:
        return self._provider is not None

    @cached_property
    def _provider(self) -> Provider | None:
        return provider_of(self.target) if inspection.is_runnable(self.target) else None

    def fingerprint(self) -> Any:
        found = super().fingerprint()
        return found if self._settings is None else [*found, self._settings.tree]

    @property
    def definition(self) -> Any:
        """The object as far as it tells; equal if made again in the same way."""
        return self.target if self._settings is None else self._settings.reprs

    def why_not_cached(self) -> str | None:
        if self._settings is None:
            return f"{self.name} is a {type(self.target).__name__}, whose settings are unknown"
        if self._settings.lacking is not None:
            return f"LangChain cannot serialize the {self._settings.lacking} in {self.name}"
        return None

    def why_not_metered(self) -> str | None:
        if not inspection.is_runnable(self.target):
            return f"{self.name} is a {type(self.target).__name__}, whose usage is unknown"
        part = inspection.unmetered(self.target)
        return part and f"LangChain reports no usage of the {part} in {self.name}"

    @cached_property
    def _settings(self) -> inspection.Settings | None:
        return inspection.settings(self.target) if inspection.is_runnable(self.target) else None

    async def _run(self, input: Any, config: RunnableConfig, **options: Any) -> Any:
        run = current_run()
        config = filled(options.pop("config", None) or config)
        observer = None
        if run is not None and inspection.is_runnable(self.target):
            observer = inspection.observer(run)
            config["callbacks"] = inspection.with_handler(config.get("callbacks"), observer)

        async def call() -> Any:
            try:
                with inspection.inherited(config):
                    output = await self._called(input, config, options)
            except Exception as error:
                _note_inner(error, None if observer is None else observer.path(error))
                raise
            _raise_broken(output)
            return output

        if observer is None or run is None or run.kept is None:
            return await call()
        provider = self._provider or unseen(place(), self.name, self.definition)
        return await guarded(provider, call, [observer])

    async def _called(self, input: Any, config: RunnableConfig, options: dict[str, Any]) -> Any:
        if self._is_async:
            try:
                output = self.target.ainvoke(input, **self._options(0, config, options))
                return await output if inspect.isawaitable(output) else output
            except NotImplementedError as error:
                if not callable(getattr(self.target, "invoke", None)):
                    raise
                if not inspection.lacks_async(error):
                    raise
                self._is_async = False
        output = await in_thread(self.target.invoke, input, **self._options(1, config, options))
        return await output if inspect.isawaitable(output) else output

    def _options(
        self, method: int, config: RunnableConfig, options: dict[str, Any]
    ) -> dict[str, Any]:
        return {"config": config, **options} if self._take_config[method] else options


def _note_inner(error: Exception, path: Sequence[str] | None) -> None:
    try:
        setattr(error, _INNER, path)
    except Exception:  # noqa: BLE001
        # An exception class may forbid attributes; the path is only a help.
        return


def _raise_broken(output: Any) -> None:
    """Raise if it is a message of LangChain's that says it broke off with an error."""
    said = getattr(output, "response_metadata", None)
    finish = said.get("finish_reason") if isinstance(said, dict) else None
    if isinstance(finish, str):
        message = {"content": getattr(output, "content", None)}
        client.raise_fault({"choices": [{"finish_reason": finish, "message": message}]})
