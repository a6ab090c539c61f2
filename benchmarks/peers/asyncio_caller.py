"""The limit: two bare processes, each with an event loop and half of the calls."""

import asyncio
import multiprocessing
from multiprocessing.connection import Connection
from typing import Any, Final

from benchmarks.inputs import MODELS, check, inputs
from benchmarks.talk import Answer, serve, spending

PROCESSES: Final = 2
#: Calls in flight, of each process.
CONCURRENCY: Final = 100


def work(pipe: Connection) -> None:
    """Answer each list of prompts with the list of answers, until the pipe closes."""
    with asyncio.Runner() as runner:
        client = runner.run(_client())
        while True:
            try:
                model, prompts = pipe.recv()
            except EOFError:
                return
            pipe.send(runner.run(_ask_all(client, model, prompts)))


async def _client() -> Any:
    from openai import AsyncOpenAI, DefaultAioHttpClient

    return AsyncOpenAI(max_retries=0, http_client=DefaultAioHttpClient())


async def _ask_all(client: Any, model: str, prompts: list[str]) -> list[str]:
    free = asyncio.Semaphore(CONCURRENCY)

    async def ask(prompt: str) -> str:
        async with free:
            messages = [{"role": "user", "content": prompt}]
            completion = await client.chat.completions.create(model=model, messages=messages)
            return str(completion.choices[0].message.content)

    return await asyncio.gather(*(ask(prompt) for prompt in prompts))


def main() -> None:
    """Start the processes, then serve."""
    context = multiprocessing.get_context("spawn")
    pipes = []
    for _ in range(PROCESSES):
        mine, theirs = context.Pipe()
        context.Process(target=work, args=(theirs,), daemon=True).start()
        pipes.append(mine)

    def run(kind: str, items: int) -> Answer:
        with spending() as spent:
            prompts = list(inputs(kind, items))
            for number, pipe in enumerate(pipes):
                pipe.send((MODELS[kind], prompts[number::PROCESSES]))
            answers = [""] * items
            for number, pipe in enumerate(pipes):
                answers[number::PROCESSES] = pipe.recv()
        check(kind, items, answers)
        return spent.row(items=items)

    serve(run=run)


if __name__ == "__main__":
    main()
