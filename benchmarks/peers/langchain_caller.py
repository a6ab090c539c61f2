"""LangChain, in one process as it is: `python -m benchmarks.peers.langchain_caller`."""

import asyncio
from typing import Any, Final, Literal

from langchain_core.runnables import RunnableConfig
from langchain_openai import ChatOpenAI
from openai import DefaultAioHttpClient

from benchmarks.inputs import MODELS, check, inputs
from benchmarks.talk import Answer, serve, spending

#: Calls in flight.
CONFIG: Final = RunnableConfig(max_concurrency=200)

loop = asyncio.new_event_loop()


def _model(kind: str, how: str) -> ChatOpenAI:
    transport: Any = DefaultAioHttpClient() if how == "abatch" else None
    return ChatOpenAI(model_name=MODELS[kind], max_retries=0, http_async_client=transport)


async def _abatch(model: ChatOpenAI, prompts: list[Any]) -> list[Any]:
    return await model.abatch(prompts, CONFIG)


models: dict[tuple[str, str], ChatOpenAI] = {}


def run(kind: str, items: int, how: Literal["batch", "abatch"] = "batch") -> Answer:
    """Run a batch and return its ordered answers."""
    with spending() as spent:
        if (kind, how) not in models:
            models[kind, how] = _model(kind, how)
        model, prompts = models[kind, how], list(inputs(kind, items))
        if how == "batch":
            answers = model.batch(prompts, CONFIG)
        else:
            answers = loop.run_until_complete(_abatch(model, prompts))
    check(kind, items, [answer.content for answer in answers])
    return spent.row(items=items)


if __name__ == "__main__":
    serve(run=run)
