"""Take the pictures of docs/flower: `python -m benchmarks.flower_pictures docs/flower`.

Real batches on a real worker, seen by a headless Chromium (Debian's package `chromium`), light and
dark, wide and narrow; with `--all` also the pages of an empty ledger and of a budget that is used.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Browser, Page, sync_playwright

from batchord.ledger.budget import Budget
from batchord.ledger.models import BatchStatus
from tests.support.flower_server import LOGIN, Flower
from tests.support.harness import Deployment
from tests.support.valkey import Server
from tests.support.waiting import wait_until

#: The chains of the batches: they wait, fail and use tokens as calls of a model do.
CHAINS: Final = """
import asyncio, random
from batchord import ChainError, OperatorNeeded, RetryLater, Usage, register, report_usage

def chain(seconds, bad, tokens, nanos):
    async def run(value):
        await asyncio.sleep(random.lognormvariate(0, 0.5) * seconds)
        used = {"input_tokens": tokens, "output_tokens": tokens // 5, "cost_nanos": nanos}
        report_usage(Usage(requests=1, **used))
        if random.random() < bad:
            if random.random() < 0.6:
                raise ChainError("the model refuses", code="refusal")
            raise ChainError("cut off", code="length")
        return "high"
    return run

async def refused(value):
    raise OperatorNeeded("no such key", code="authentication_error")

register("classify-tickets", chain(0.3, 0.07, 3800, 8_250_000), reports_usage=True)
register("embed-catalogue", chain(0.02, 0.07, 1900, 4_600_000), reports_usage=True)
register("extract-invoices", chain(0.02, 0, 1200, None), reports_usage=True)
register("summarise-contracts", chain(0.4, 0, 9000, None), reports_usage=True)
register("translate-reviews", refused, reports_usage=True)
"""

SIZES: Final = {"wide": (1120, 700), "narrow": (390, 844)}


@contextmanager
def deployed() -> Iterator[tuple[Deployment, Flower]]:
    """Run a server, a worker and Flower."""
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(Server(root / "server"))
        folder = root / "work"
        folder.mkdir()
        (folder / "chains_shown.py").write_text(CHAINS)
        deployment = Deployment(server.url, folder, alike_limit=0, task_events=True)
        stack.callback(deployment.close)
        flower = Flower(deployment)
        wait_until(lambda: flower.status("/batches") == 200, what="Flower answers", timeout=60)
        yield deployment, flower


def fill(deployment: Deployment) -> str:
    """Submit the batches that are shown; return the id of the one that runs."""
    env = {"BATCHORD_CHAINS": "chains_shown", "PYTHONPATH": str(deployment.folder)}
    deployment.start_worker(concurrency=16, env=env)
    client = deployment.client
    client.submit("embed-catalogue", range(399), metadata={"team": "search"}).wait(120)
    waiting = client.submit("translate-reviews", range(299), metadata={"team": "growth"})
    wait_until(
        lambda: waiting.record().status is BatchStatus.PAUSED, what="it is paused", timeout=60
    )
    cancelled = client.submit("summarise-contracts", range(199))
    time.sleep(1)
    cancelled.cancel()
    client.submit("extract-invoices", range(250), metadata={"run": "2026-11-28"}).wait(120)
    spent = client.submit(
        "extract-invoices", range(500), budget=Budget(tokens=100_000), max_concurrency=16
    )
    wait_until(
        lambda: spent.record().status is BatchStatus.PAUSED, what="its budget is used", timeout=60
    )
    metadata = {"team": "support", "model": "gpt-5-mini", "env": "prod"}
    running = client.submit("classify-tickets", range(3999), metadata=metadata)
    time.sleep(40)
    return running.id


class Camera:
    """Takes the pages of a site, in both themes and both widths."""

    def __init__(self, browser: Browser, site: str, folder: Path) -> None:
        self._browser, self._site, self._folder = browser, site, folder

    def take(
        self, name: str, path: str, *, tall: int = 0, act: Callable[[Page], Any] = lambda _: None
    ) -> None:
        """Take a page; `tall`: its height when it is wide; `act` does something on it before."""
        user, password = LOGIN.split(":")
        for theme in ("light", "dark"):
            for size, (width, height) in SIZES.items():
                context = self._browser.new_context(
                    http_credentials={"username": user, "password": password},
                    color_scheme="dark" if theme == "dark" else "light",
                    viewport={
                        "width": width,
                        "height": tall if tall and size == "wide" else height,
                    },
                )
                page = context.new_page()
                page.goto(f"{self._site}{path}")
                page.locator(".status-dot-live").wait_for()
                act(page)
                page.wait_for_timeout(600)
                page.screenshot(path=self._folder / f"{name}-{theme}-{size}.png")
                context.close()


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--all", action="store_true", help="also those that are not in the docs")
    given = parser.parse_args()
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("no chromium: apt-get install chromium")
    with deployed() as (deployment, flower), sync_playwright() as playwright:
        # The sandbox needs a user that is not root; the pages are our own.
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        camera = Camera(browser, flower.url, given.folder)
        if given.all:
            camera.take("empty", "/batches")
        running = fill(deployment)
        camera.take("list", "/batches")
        camera.take("batch", f"/batch/{running}", tall=900)
        if given.all:
            spent = deployment.client.list(limit=2)[1].id
            camera.take("failures", "/batches?failures=1")
            camera.take(
                "budget",
                f"/batch/{spent}",
                tall=900,
                act=lambda page: page.get_by_role("button", name="Resume").click(),
            )
        browser.close()


if __name__ == "__main__":
    main()
