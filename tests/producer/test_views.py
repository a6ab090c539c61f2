"""Views of a batch and its results in a notebook, and while it is watched."""

import asyncio
import contextlib
import io
import re
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest

from batchord import Batch
from batchord.ledger.models import (
    BatchRecord,
    BatchStatus,
    Item,
    ItemError,
    ItemStatus,
    PauseReason,
    RequestCounts,
)
from batchord.ledger.storage.batch_stats import FailureGroup, Progress
from batchord.producer.notebook_html import batch_html, results_html
from tests.support.harness import Deployment

EVIL = "<script>alert('x')</script>&\""


class Tags(HTMLParser):
    """Collects the tags, and fails for one that is not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.all: set[str] = set()
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.all.add(tag)
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_whatever_a_caller_or_a_model_wrote_is_text() -> None:
    record = BatchRecord(
        id="batch_1",
        chain=EVIL,
        status=BatchStatus.PAUSED,
        request_counts=RequestCounts(total=4, succeeded=1, failed=1),
        reason=PauseReason(code=EVIL, message=EVIL),
        created_at=datetime.now(UTC),
    )
    error = ItemError(code=EVIL, message=EVIL)
    items = [
        Item(index=0, custom_id=EVIL, status=ItemStatus.SUCCEEDED, output={EVIL: EVIL}),
        Item(index=1, custom_id="b", status=ItemStatus.FAILED, error=error),
        Item(index=2, custom_id="c", status=ItemStatus.SUCCEEDED, output="x" * 10_000),
    ]
    progress = Progress(
        id=record.id,
        status=record.status,
        request_counts=record.request_counts,
        failures=[FailureGroup(code=EVIL, count=1, first=[1])],
        throughput=[],
    )
    for html in (batch_html(record, progress, EVIL), results_html(items, 4)):
        tags = Tags(html)
        assert "script" not in tags.all
        assert EVIL in tags.text
        assert len(html) < 10_000
    assert "and 1 more" in results_html(items, 4)


@pytest.fixture
def done(shared: Deployment) -> Batch:
    inputs = [{"value": n, "fail": "later" if n == 2 else None} for n in range(30)]
    batch = shared.client.submit("may-fail", inputs)
    batch.wait()
    return batch


def test_a_batch_shows_its_counts_failures_and_first_results(done: Batch) -> None:
    text = Tags(done._repr_html_()).text
    for part in ("may-fail", "completed", "30 of 30 done", "29 succeeded", "1 rate_limited"):
        assert part in text
    assert "(first: #2)" in text
    table = Tags(done.results()._repr_html_() or "").text
    assert "rate_limited: slow down" in table
    assert "and 10 more" in table
    assert done.events()._repr_html_() is None


def test_what_cannot_be_read_is_said_in_its_place(deployment: Deployment, done: Batch) -> None:
    gone = Batch("batch_gone", deployment.client._reader, done._control, done._edge)
    for html in (gone._repr_html_(), gone.results()._repr_html_()):
        assert html is not None
        assert "&lt;Batch batch_gone&gt;: unknown batch" in html


def test_results_that_are_not_there_yet_are_not_waited_for(deployment: Deployment) -> None:
    batch = deployment.client.submit(prompt="{x}", model="m", inputs=["a", "b"])
    assert Tags(batch.results()._repr_html_() or "").text.count("queued") == 2
    text = Tags(batch._repr_html_()).text
    assert "0 of 2 done" in text
    assert batch.why_waiting() in text
    assert "no worker" in text


def test_it_is_watched_to_its_end_sync_and_async(shared: Deployment) -> None:
    for watch in (Batch.watch, lambda batch: asyncio.run(batch.awatch())):
        batch = shared.client.submit("echo", list(range(10)))
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            record = watch(batch)
        assert record.status is BatchStatus.COMPLETED
        assert re.search(r"echo .* 10/10 completed", said.getvalue().splitlines()[-1])
