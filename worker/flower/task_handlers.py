"""The handler of Flower's API for tasks, where a task is a batch's."""

from flower.api.control import TaskRevoke
from tornado.web import HTTPError, authenticated

from batchord.ledger.core.message_ids import use_cancel


class Revoke(TaskRevoke):
    """Refuses to revoke a task of a batch, which would be repaired, and names `cancel`."""

    @authenticated
    async def post(self, taskid: str) -> None:
        if self.application.options.read_only:
            raise HTTPError(403, "Read only mode is enabled")
        self.set_status(409)
        self.write({"message": use_cancel(taskid)})
