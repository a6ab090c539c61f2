"""The chains that Batchord's workers run here."""

import asyncio

from celery.signals import worker_ready

from batchord import Chat, Embed, Lambda, RateLimit, register
from benchmarks.inputs import MODELS
from benchmarks.talk import announce


async def _same(value: object) -> object:
    return value


async def _nap(value: float) -> float:
    await asyncio.sleep(value)
    return value


def _ready(**_: object) -> None:
    announce()


register("noop", Lambda(_same))
register("nap", Lambda(_nap))
register("limited", Chat(MODELS["llm"], limit=RateLimit("bench", rpm=600), retry=None))
register("embed", Embed("instant", retry=None))
for _kind, _model in MODELS.items():
    # The provider never fails: what is compared is the way there and back.
    register(_kind, Chat(_model, retry=None))

worker_ready.connect(_ready, weak=False)
