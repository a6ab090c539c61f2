"""Texts to vectors, as a vectorised step."""

import asyncio
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final
from weakref import WeakKeyDictionary

from batchord.chains.composition.step import Step
from batchord.chains.config import RunnableConfig
from batchord.chains.errors import ChainError, InvalidInput
from batchord.chains.openai import client
from batchord.chains.ratelimit.limits import RateLimit
from batchord.chains.runtime.concurrency import current_gate
from batchord.chains.runtime.item_context import report_usage
from batchord.chains.runtime.retry import DEFAULT_RETRY, RetryPolicy
from batchord.chains.runtime.tracing import ModelCall, traced
from batchord.chains.steps.embedding_batcher import MAX_INPUTS, EmbeddingBatcher, Found, Report
from batchord.chains.steps.offline_call import OfflineCall
from batchord.chains.steps.vectors import Vector, vectors_of
from batchord.chains.usage import Usage

DEFAULT_MODEL = "text-embedding-3-small"
#: Vectors that are read on the event loop.
_FEW: Final = 32
#: Seconds that the SDK waits unless it is told otherwise.
_SDK_TIMEOUT: Final = 600.0


class Embed(Step[Any, Any], OfflineCall):
    """A text to its vector (`list[float]`), or a list of texts to the list of their vectors.

    The model is `model`, else OPENAI_EMBEDDING_MODEL, else text-embedding-3-small. Texts that are
    wanted at the same moment, by a batch or by many items at once, share requests of up to 2,048
    texts and 300,000 tokens; `max_concurrency` bounds the requests. A request that fails is made
    again as `retry` says; a text that the provider refuses fails alone. Each request waits until
    `limit` allows it.

    The tokens of a shared request are counted for its items by the estimated size of their texts,
    the request itself for the first of them, so that the sums are exact.
    """

    endpoint = "/v1/embeddings"
    #: The requests hold the permits, and not the texts that wait for them.
    is_call = False
    inputs_per_call = MAX_INPUTS
    paid = True

    def __init__(
        self,
        model: str | None = None,
        *,
        dimensions: int | None = None,
        timeout: float | None = None,
        retry: RetryPolicy | None = DEFAULT_RETRY,
        limit: RateLimit | None = None,
        name: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(name=name)  # the collector retries, once for all texts of a request
        self._retry = retry
        self._limit = limit
        self._model = model
        known = {"dimensions": dimensions, "timeout": timeout}
        self._options = {
            **{key: value for key, value in known.items() if value is not None},
            **options,
        }
        self._lock = threading.Lock()
        #: By gate, or by event loop where there is no gate: a future belongs to one loop.
        self._collectors: WeakKeyDictionary[object, EmbeddingBatcher] = WeakKeyDictionary()

    async def _run(self, input: Any, config: RunnableConfig, **options: Any) -> Any:
        vectors = await self._vectors(self._texts(input))
        return vectors[0] if isinstance(input, str) else vectors

    def fingerprint(self) -> Any:
        return ["embed", self.asked_for(), self._options]

    def _texts(self, input: Any) -> list[str]:
        texts: Any = [input] if isinstance(input, str) else input
        if not isinstance(texts, Sequence) or isinstance(texts, bytes):
            raise InvalidInput(
                f"{self.name} takes a text or a list of texts, not {type(input).__name__}"
            )
        for text in texts:
            if not isinstance(text, str):
                raise InvalidInput(f"{self.name} takes texts, not {type(text).__name__}")
            if not text:
                raise InvalidInput(f"{self.name} was given an empty text, which has no vector")
        return list(texts)

    def asked_for(self) -> str:
        """Return the model that requests name."""
        return client.model_name(self._model, "OPENAI_EMBEDDING_MODEL", DEFAULT_MODEL)

    def unset(self, environment: Mapping[str, str]) -> list[str]:
        """Return its key if that is not set."""
        return client.unset(environment)

    def request(self, input: Any) -> dict[str, Any]:
        """Build the body of a request for one text.

        A list is refused: the answer would not tell it from its only text.
        """
        if not isinstance(input, str):
            raise InvalidInput(
                f"{self.name} takes one text an item in a provider's batch, not "
                f"{type(input).__name__}"
            )
        options = {key: value for key, value in self._options.items() if key != "timeout"}
        # As the SDK asks for them: a quarter of the size, and exact.
        known = {"model": self.asked_for(), "encoding_format": "base64"}
        return {**known, **options, "input": self._texts(input)}

    def read(self, body: Any) -> Vector:
        """Return the vector in an answer's body."""
        client.raise_fault(body)
        [found] = vectors_of(body, 1)
        if isinstance(found, ChainError):
            raise found
        return found

    async def _vectors(self, texts: list[str]) -> list[Vector]:
        collector = self._collector()
        wanted = [collector.want(text) for text in texts]
        try:
            answers = [await one.answer for one in wanted]
        finally:
            for one in wanted:
                one.answer.cancel()  # does nothing to those that were answered
        if answers:
            first, *others = (answer.usage for answer in answers)
            report_usage(sum(others, first))
        for answer in answers:
            if answer.error is not None:
                raise answer.error
        return [answer.vector for answer in answers if answer.vector is not None]

    def _collector(self) -> EmbeddingBatcher:
        gate = current_gate()
        key: object = gate or asyncio.get_running_loop()
        with self._lock:
            collector = self._collectors.get(key)
            if collector is None:
                model = self.asked_for()
                collector = EmbeddingBatcher(
                    self._traced,
                    gate=gate,
                    retry=self._retry,
                    limit=self._limit or client.shared_cool_down(model),
                    target=client.cool_down_of(model),
                )
                self._collectors[key] = collector
            return collector

    async def _traced(
        self, texts: Sequence[str], seconds: float | None, report: Report
    ) -> tuple[Found, Usage]:
        base_url = str((await client.client()).base_url)
        about = ModelCall("embeddings", self.asked_for(), base_url)
        return await traced(partial(self._send, texts, seconds, report), about)()

    async def _send(
        self, texts: Sequence[str], seconds: float | None, report: Report
    ) -> tuple[Found, Usage]:
        """Ask for the vectors of the texts; wait `seconds` at most, or as long as ever."""
        model = self.asked_for()
        options = dict(self._options)
        if seconds is not None and type(options.get("timeout", seconds)) in (int, float):
            options["timeout"] = min(options.get("timeout", _SDK_TIMEOUT), seconds)
        with client.translate():
            embeddings = (await client.client()).embeddings.with_raw_response
            # As an argument, the SDK would look at each text, which is a fifth of what it costs.
            extra = {"input": list(texts), **(options.pop("extra_body", None) or {})}
            raw = await embeddings.create(model=model, input=[], extra_body=extra, **options)

        def read() -> tuple[Found | ChainError, Usage]:
            body = client.body_of(raw)
            used = client.paid(body, model)
            try:
                client.raise_fault(body, raw.headers)
                return vectors_of(body, len(texts)), used
            except ChainError as error:
                return error, used

        # The numbers of a full request take a tenth of a second, in which the loop would stand.
        found, used = read() if len(texts) <= _FEW else await asyncio.to_thread(read)
        report(used)
        if isinstance(found, ChainError):
            raise found
        return found, used
