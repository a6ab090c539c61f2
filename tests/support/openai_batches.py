"""The Files and the Batch API of the test server: in memory, with accounts of its own.

A batch takes a step each time that it is looked at: validating, in_progress, and its end. Its
answers are out of order, and wrong in all the ways that were seen of batches when told to.
"""

import itertools
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.support.openai_answers import JsonObject
from tests.support.openai_rules import Failure

#: Runs one request (URL, body); gives status and body of the answer.
Execute = Callable[[str, JsonObject], tuple[int, JsonObject]]

_ENDED = ("failed", "completed", "expired", "cancelled")


@dataclass
class Behaviour:
    """Troubles of batches from now on."""

    #: They stay in progress.
    held: bool = False
    #: They expire, or end cancelled, after this many requests; the answers until then are there.
    expire_after: int | None = None
    done_when_cancelled: int = 0
    #: The code with which they fail as a whole, before anything is run; this many of them.
    refuse: str | None = None
    refusals: int = 1
    #: This many batches are created without a reply, and are then not listed this many times.
    lose_creates: int = 0
    list_late: int = 0
    #: The same of files.
    lose_uploads: int = 0
    #: This many answers are left out; answers come twice, the second one wrong; answers to nothing.
    lose: int = 0
    repeat: bool = False
    strangers: bool = False


@dataclass
class Batches:
    """Files and batches by id, and what was run: who was paid for what is told by nobody else."""

    execute: Execute
    behaviour: Behaviour = field(default_factory=Behaviour)
    files: dict[str, JsonObject] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, JsonObject] = field(default_factory=dict)
    #: How often each custom_id was run.
    executed: Counter[str] = field(default_factory=Counter)
    #: How many times what was created is not listed yet.
    _hidden: Counter[str] = field(default_factory=Counter)
    _ids: Any = field(default_factory=lambda: itertools.count(1))
    _lock: Any = field(default_factory=threading.RLock)

    @property
    def uploads(self) -> list[JsonObject]:
        """Files that clients have uploaded."""
        return [each for each in self.files.values() if each["purpose"] == "batch"]

    def requests_of(self, batch: JsonObject) -> list[JsonObject]:
        """The lines of a batch's input file."""
        content = self.contents[batch["input_file_id"]]
        return [json.loads(line) for line in content.splitlines()]

    def add_file(self, body: JsonObject) -> web.Response:
        if body.get("purpose") != "batch" or not body.get("content"):
            return Failure(status=400, message="purpose must be batch, with a file").response()
        with self._lock:
            made = self._add(body["filename"], body["content"], "batch")
            if self.behaviour.lose_uploads > 0:
                self.behaviour.lose_uploads -= 1
                return self._lost(made)
            return web.json_response(made)

    def _lost(self, made: JsonObject) -> web.Response:
        """As a proxy answers that has waited for too long."""
        self._hidden[made["id"]] = self.behaviour.list_late
        return Failure(status=504, message="the reply is lost").response()

    def _add(self, name: str, content: bytes, purpose: str) -> JsonObject:
        made: JsonObject = {
            "id": f"file-{next(self._ids)}",
            "object": "file",
            "bytes": len(content),
            "created_at": int(time.time()),
            "filename": name,
            "purpose": purpose,
            "status": "processed",
        }
        self.files[made["id"]], self.contents[made["id"]] = made, content
        return made

    def list_files(self, body: JsonObject) -> web.Response:
        return self._page(list(self.files.values()), body, purpose=body.get("purpose"))

    def delete_file(self, body: JsonObject) -> web.Response:
        with self._lock:
            del self.files[body["id"]]
        return web.json_response({"id": body["id"], "object": "file", "deleted": True})

    def content(self, body: JsonObject) -> web.Response:
        if body["id"] not in self.contents:
            return Failure(status=404, message="No such File object").response()
        return web.Response(body=self.contents[body["id"]], content_type="application/octet-stream")

    def create(self, body: JsonObject) -> web.Response:
        if body.get("input_file_id") not in self.files or body.get("completion_window") != "24h":
            return Failure(status=400, message="no such file, or window").response()
        with self._lock:
            made = {
                "id": f"batch_{next(self._ids)}",
                "object": "batch",
                "endpoint": body["endpoint"],
                "input_file_id": body["input_file_id"],
                "completion_window": "24h",
                "status": "validating",
                "created_at": int(time.time()),
                "metadata": body.get("metadata"),
                "errors": None,
                "output_file_id": None,
                "error_file_id": None,
                "request_counts": {"total": 0, "completed": 0, "failed": 0},
            }
            self.batches[made["id"]] = made
            if self.behaviour.lose_creates > 0:
                self.behaviour.lose_creates -= 1
                return self._lost(made)
            return web.json_response(made)

    def list_batches(self, body: JsonObject) -> web.Response:
        return self._page(list(self.batches.values()), body)

    def retrieve(self, body: JsonObject) -> web.Response:
        with self._lock:
            batch = self.batches.get(body["id"])
            if batch is None:
                return Failure(status=404, message="No such batch").response()
            self._step(batch)
            return web.json_response(batch)

    def cancel(self, body: JsonObject) -> web.Response:
        with self._lock:
            batch = self.batches[body["id"]]
            if batch["status"] in _ENDED:
                return Failure(status=409, message="it has ended").response()
            batch["status"] = "cancelling"
            return web.json_response(batch)

    def _page(
        self, all_: list[JsonObject], body: JsonObject, purpose: str | None = None
    ) -> web.Response:
        """Newest first, behind `after`, as cursors go."""
        found = [one for one in reversed(all_) if purpose in (None, one.get("purpose"))]
        hidden = [one["id"] for one in found if self._hidden.get(one["id"], 0) > 0]
        found = [one for one in found if one["id"] not in hidden]
        for id_ in hidden:
            self._hidden[id_] -= 1
        ids = [one["id"] for one in found]
        start = ids.index(body["after"]) + 1 if "after" in body else 0
        limit = int(body.get("limit", 20))
        data = found[start : start + limit]
        more = start + limit < len(found)
        return web.json_response({"object": "list", "data": data, "has_more": more})

    def _step(self, batch: JsonObject) -> None:
        how = self.behaviour
        match batch["status"]:
            case "validating" if how.refuse is not None and how.refusals > 0:
                how.refusals -= 1
                error = {"code": how.refuse, "message": "told to fail", "line": None, "param": None}
                batch |= {"status": "failed", "errors": {"object": "list", "data": [error]}}
            case "validating":
                batch["status"] = "in_progress"
            case "in_progress" if not how.held:
                end = "completed" if how.expire_after is None else "expired"
                self._end(batch, end, how.expire_after)
            case "cancelling":
                self._end(batch, "cancelled", how.done_when_cancelled)

    def _end(self, batch: JsonObject, status: str, most: int | None) -> None:
        lines = self.requests_of(batch)
        random.Random(len(lines)).shuffle(lines)
        good: list[JsonObject] = []
        bad: list[JsonObject] = []
        for place, line in enumerate(lines):
            if most is not None and place >= most:
                if status == "expired":
                    error = {"code": "batch_expired", "message": "This request did not run."}
                    bad.append(self._line(line["custom_id"], None, error))
                continue
            self.executed[line["custom_id"]] += 1
            code, body = self.execute(line["url"], line["body"])
            answer = {"status_code": code, "request_id": "req_1", "body": body}
            (good if code == 200 else bad).append(self._line(line["custom_id"], answer, None))
        good = self._spoiled(good)
        batch["status"] = status
        # No file where it would be empty; some write "" for that.
        for name, some, none in (("output_file_id", good, None), ("error_file_id", bad, "")):
            content = b"".join(json.dumps(line).encode() + b"\n" for line in some)
            made = self._add(f"{batch['id']}.jsonl", content, "batch_output") if some else None
            batch[name] = none if made is None else made["id"]
        batch["request_counts"] = {
            "total": len(lines),
            "completed": len(good),
            "failed": len(bad),
        }

    def _spoiled(self, good: list[JsonObject]) -> list[JsonObject]:
        how = self.behaviour
        good = good[how.lose :]
        if how.repeat:
            wrong = {"status_code": 500, "request_id": "req_2", "body": {}}
            good = good + [self._line(line["custom_id"], wrong, None) for line in good]
        if how.strangers:
            others = ("nobody", "batch_0:1", "batch_0:x")
            nothing: JsonObject = {"status_code": 200, "body": {}}
            good = [*(self._line(name, nothing, None) for name in others), *good]
        return good

    def _line(
        self, custom_id: str, response: JsonObject | None, error: JsonObject | None
    ) -> JsonObject:
        made = f"batch_req_{next(self._ids)}"
        return {"id": made, "custom_id": custom_id, "response": response, "error": error}
