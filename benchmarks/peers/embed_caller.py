"""Texts to vectors in one process: `Embed`, or an event loop that sends full requests."""

import asyncio
from typing import Any, Final

from benchmarks.inputs import check, inputs
from benchmarks.talk import Answer, serve, spending

#: Texts of one request at most, as the API takes them, and requests in flight.
FULL: Final = 2_048
IN_FLIGHT: Final = 4


async def bare(texts: list[str]) -> list[list[float]]:
    """Return the vectors of the texts, by the SDK alone."""
    from openai import AsyncOpenAI, DefaultAioHttpClient

    free = asyncio.Semaphore(IN_FLIGHT)

    async def ask(some: list[str]) -> list[list[float]]:
        async with free:
            answer = await sdk.embeddings.create(model="instant", input=some)
            return [each.embedding for each in sorted(answer.data, key=lambda each: each.index)]

    async with AsyncOpenAI(max_retries=0, http_client=DefaultAioHttpClient()) as sdk:
        parts = [texts[at : at + FULL] for at in range(0, len(texts), FULL)]
        found = await asyncio.gather(*map(ask, parts))
    return [vector for some in found for vector in some]


def main() -> None:
    """Serve."""

    def run(kind: str, items: int, how: str) -> Answer:
        texts: list[Any] = list(inputs(kind, items))
        if how == "embed":
            from batchord import Embed

            step = Embed("instant", retry=None)
            step.invoke("warm")
            with spending() as spent:
                vectors = step.batch(texts)
        else:
            asyncio.run(bare(texts[:1]))
            with spending() as spent:
                vectors = asyncio.run(bare(texts))
        check(kind, items, vectors)
        return spent.row(items=items)

    serve(run=run)


if __name__ == "__main__":
    main()
