"""The handler of the workers that are alive."""

from tornado.web import authenticated

from batchord.worker.flower.handlers import Api


class ListWorkers(Api):
    """`GET /api/batches/workers`: the workers, as each has said in its latest beat."""

    @authenticated
    async def get(self) -> None:
        self.write(await self.ask(self.queries.workers))
