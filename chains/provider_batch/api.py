"""A provider's Batch API: request files and provider batches, and the search for lost ones."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple

from batchord.chains.errors import OperatorNeeded
from batchord.chains.openai.client import translate

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types import Batch

#: The only one that OpenAI takes.
WINDOW: Final = "24h"
#: Statuses in which nothing more happens.
ENDED: Final = frozenset({"completed", "failed", "expired", "cancelled"})
#: Seconds by which the provider's clock and ours may differ.
_SKEW: Final = 3600.0
#: Longest line of an answer that is read, in bytes.
_LONGEST_LINE: Final = 64 * 2**20


class ProviderBatch(NamedTuple):
    """One of the provider's batches as it stands."""

    id: str
    status: str
    #: Requests that are answered, well or badly.
    done: int = 0
    #: Files of answers: those of good ones, and of others.
    files: tuple[str, ...] = ()
    #: What was wrong with the whole of it.
    code: str | None = None
    message: str | None = None


class BatchAPI:
    """The provider that the environment names, for one thread. It never tries a call again.

    Raises, from each call: RetryLater, OperatorNeeded, ChainError.
    """

    def __enter__(self) -> "BatchAPI":
        return self

    def __exit__(self, *exc_info: object) -> None:
        if "_client" in self.__dict__:
            self._client.close()

    @cached_property
    def _client(self) -> "OpenAI":
        from openai import OpenAI  # on first use: see `batchord.chains.openai.client`

        with _talking():
            return OpenAI(max_retries=0)

    def upload(self, name: str, file: IO[bytes]) -> str:
        """Upload a file of requests under this name; return its id."""
        file.seek(0)
        with _talking():
            return self._client.files.create(file=(name, file), purpose="batch").id

    def find_files(self, name: str, since: float) -> list[str]:
        """Return the ids of the files of this name that were uploaded since then, newest first."""
        found = []
        with _talking():
            for file in self._client.files.list(purpose="batch", order="desc", limit=100):
                if file.created_at < since - _SKEW:
                    break
                if file.filename == name:
                    found.append(file.id)
        return found

    def delete_file(self, file_id: str) -> None:
        """Delete a file of requests."""
        with _talking():
            self._client.files.delete(file_id)

    def create(
        self, file_id: str, endpoint: str, batch_id: str, part: int, attempt: str
    ) -> ProviderBatch:
        """Have the requests of a file run; the same `attempt` names a repetition of this call."""
        name: Any = endpoint
        with _talking():
            made = self._client.batches.create(
                input_file_id=file_id,
                endpoint=name,
                completion_window=WINDOW,
                metadata=_mark(batch_id, part),
                # Not all providers look at it; where one does, a repetition is harmless.
                extra_headers={"Idempotency-Key": f"{batch_id}:part-{part}:{attempt}"},
            )
        return _read(made)

    def find_all(self, batch_id: str, part: int, since: float) -> list[ProviderBatch]:
        """Return the provider's batches of this part that were created since then, newest first.

        Not those that have failed as a whole: nothing of them was run.
        """
        found = []
        with _talking():
            for each in self._client.batches.list(limit=100):
                if each.created_at < since - _SKEW:
                    break
                marked = (each.metadata or {}).items() >= _mark(batch_id, part).items()
                if marked and each.status != "failed":
                    found.append(_read(each))
        return found

    def retrieve(self, provider_batch: str) -> ProviderBatch:
        """Return how it stands."""
        with _talking():
            return _read(self._client.batches.retrieve(provider_batch))

    def cancel(self, provider_batch: str) -> ProviderBatch:
        """Have it end with what is done."""
        with _talking():
            return _read(self._client.batches.cancel(provider_batch))

    def lines(self, file_id: str) -> Iterator[bytes]:
        """Yield the lines of a file of answers; it is fetched into a file, not into memory."""
        with TemporaryFile() as copy:
            with (
                _talking(),
                self._client.files.with_streaming_response.content(file_id) as answer,
            ):
                for block in answer.iter_bytes(2**20):
                    copy.write(block)
            copy.seek(0)
            while line := copy.readline(_LONGEST_LINE):
                if line.strip():
                    yield line


@contextmanager
def _talking() -> Iterator[None]:
    """Let no error of the SDK through; what is not found is no model here."""
    try:
        with translate():
            yield
    except OperatorNeeded as error:
        if error.http_status != 404:
            raise
        raise OperatorNeeded(
            "the provider has no Batch API at OPENAI_BASE_URL, or has lost a file or a batch",
            code="not_found",
            http_status=404,
        ) from None


def _mark(batch_id: str, part: int) -> dict[str, str]:
    return {"batchord": batch_id, "part": str(part)}


def _read(batch: "Batch") -> ProviderBatch:
    counts = batch.request_counts
    errors = (batch.errors and batch.errors.data) or []
    first = errors[0] if errors else None
    return ProviderBatch(
        id=batch.id,
        status=batch.status,
        done=0 if counts is None else counts.completed + counts.failed,
        # Some providers write "" for a missing file.
        files=tuple(filter(None, (batch.output_file_id, batch.error_file_id))),
        code=None if first is None else first.code,
        message=None if first is None else first.message,
    )
