"""The Batches tab in a real browser: Debian's Chromium, driven by Playwright.

Without it these are skipped, unless BATCHORD_TEST_BROWSER says that it must be there.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from batchord.chains import register
from batchord.ledger.budget import Budget
from batchord.ledger.models import BatchStatus
from batchord.producer import Batch
from tests.conftest import Deploy
from tests.support.flower_server import LOGIN, Flower
from tests.support.harness import Deployment, wait_until

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(
        CHROMIUM is None and not os.environ.get("BATCHORD_TEST_BROWSER"),
        reason="no Chromium: apt-get install chromium, and these tests of Flower's pages run too",
    ),
]

MARKUP = '"><img src=x onerror="window.hacked=1">'
CANARY = "canary-of-the-browser"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM, "BATCHORD_TEST_BROWSER is set, and there is no chromium"
    expect.set_options(timeout=20_000)
    with sync_playwright() as playwright:
        # The sandbox needs a user that is not root; the pages are our own.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def deployment(deploy_for_module: Deploy) -> Deployment:
    deployment = deploy_for_module(alike_limit=0, task_events=True, lease=4)
    deployment.start_worker(concurrency=4)
    return deployment


@pytest.fixture(scope="module")
def flowers(deployment: Deployment) -> dict[str, Flower]:
    found = {
        "plain": Flower(deployment),
        "reader": Flower(deployment, "--read_only=true", env={"BATCHORD_FLOWER_PAYLOADS": "1"}),
    }
    for flower in found.values():
        flower.wait()
    return found


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    user, password = LOGIN.split(":")
    context = browser.new_context(http_credentials={"username": user, "password": password})
    context.set_default_timeout(20_000)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A page on which no script may fail."""
    page = context.new_page()
    broken: list[str] = []
    page.on("pageerror", lambda error: broken.append(str(error)))
    yield page
    assert broken == []
    assert not page.evaluate("window.hacked")


@pytest.fixture
def gated(deployment: Deployment, request: pytest.FixtureRequest) -> Iterator[tuple[Batch, Path]]:
    """A batch of 40 items that wait until a file, the gate, is there."""
    gate = deployment.folder / f"{request.node.name}.gate"
    what = {"path": str(deployment.folder / "begun"), "gate": str(gate)}
    batch = deployment.client.submit("gated", [{**what, "value": n} for n in range(40)])
    yield batch, gate
    gate.touch()  # else they would hold the worker's slots


def test_a_browser_that_does_not_log_in_sees_nothing(
    browser: Browser, flowers: dict[str, Flower]
) -> None:
    context = browser.new_context(http_credentials={"username": "watcher", "password": "wrong"})
    page = context.new_page()
    answer = page.goto(f"{flowers['plain'].url}/batches")
    assert answer is not None
    assert answer.status == 401
    assert "Batches" not in page.content()
    context.close()


def test_the_bar_moves_without_reloading(
    gated: tuple[Batch, Path], flowers: dict[str, Flower], page: Page
) -> None:
    batch, gate = gated
    page.goto(f"{flowers['plain'].url}/batches")
    row = page.locator(f"tr[data-id={batch.id}]")
    expect(row.locator(".batch-says")).to_have_text("0 of 40 done")
    page.evaluate("window.same = 1")
    row.get_by_role("link", name="gated").focus()
    gate.touch()
    expect(row.locator(".batch-says")).to_have_text("40 of 40 done")
    expect(row.locator(".batch-badge")).to_have_text("completed")
    assert page.evaluate("window.same") == 1
    # Rows change in place: anyone who is on a link with the keyboard stays there.
    page.keyboard.press("Enter")
    expect(page.locator("#batch-chain")).to_have_text("gated")
    expect(page.locator("#batch-bar [role=progressbar]")).to_have_attribute("aria-valuenow", "100")
    expect(page.locator("#batch-plot svg")).to_be_visible()


def test_the_strip_of_workers_moves_with_what_they_run(
    gated: tuple[Batch, Path], flowers: dict[str, Flower], page: Page
) -> None:
    _, gate = gated
    page.goto(f"{flowers['plain'].url}/batches")
    expect(page.locator("#workers-says")).to_contain_text("1 worker · 4 of 4 slots busy")
    expect(page.locator(".worker-busy")).to_have_text("4 of 4")
    gate.touch()
    expect(page.locator(".worker-busy")).to_have_text("0 of 4")
    expect(page.locator(".worker-why")).to_be_hidden()


def test_a_page_is_told_and_does_not_ask(
    gated: tuple[Batch, Path], flowers: dict[str, Flower], page: Page
) -> None:
    batch, gate = gated
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.rsplit("/", 1)[1].split("?")[0]))
    page.goto(f"{flowers['plain'].url}/batch/{batch.id}")
    expect(page.locator("#batch-counts")).to_have_text("0 of 40 done")
    gate.touch()
    expect(page.locator("#batch-counts")).to_have_text("40 of 40 done")
    expect(page.locator("#batch-status")).to_have_text("completed")
    assert asked.count("events") == 1
    assert "data" not in asked


@pytest.mark.parametrize("broken", ["refused", "silent"])
def test_where_a_proxy_lets_no_stream_through_the_page_asks(
    gated: tuple[Batch, Path], flowers: dict[str, Flower], page: Page, broken: str
) -> None:
    batch, gate = gated
    page.route(
        "**/events",
        lambda route: route.fulfill(status=502, body="") if broken == "refused" else None,
    )
    page.goto(f"{flowers['plain'].url}/batch/{batch.id}")
    expect(page.locator("#batch-counts")).to_have_text("0 of 40 done")
    expect(page.locator("#live-text")).to_have_text("Live")
    gate.touch()
    expect(page.locator("#batch-counts")).to_have_text("40 of 40 done")


def test_a_batch_is_paused_resumed_and_cancelled_by_buttons(
    gated: tuple[Batch, Path], flowers: dict[str, Flower], page: Page
) -> None:
    batch, _ = gated
    page.goto(f"{flowers['plain'].url}/batch/{batch.id}")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#batch-status")).to_have_text("paused")
    expect(page.locator("#batch-reason")).to_contain_text("Paused by someone")
    assert batch.record().status is BatchStatus.PAUSED
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("#batch-status")).to_have_text("in progress")
    expect(page.locator("#batch-reason")).to_be_hidden()
    page.get_by_role("button", name="Cancel", exact=True).click()
    page.get_by_role("button", name="No").click()
    assert batch.record().status is BatchStatus.IN_PROGRESS
    page.get_by_role("button", name="Cancel", exact=True).click()
    page.get_by_role("button", name="Cancel the batch").click()
    expect(page.locator("#batch-status")).to_have_text("cancelled")
    assert batch.wait(30).status is BatchStatus.CANCELLED
    for name in ("Pause", "Resume", "Cancel"):
        expect(page.get_by_role("button", name=name, exact=True)).to_be_disabled()


def test_the_failed_items_of_one_code_run_again_once_they_are_mended(
    deployment: Deployment, flowers: dict[str, Flower], page: Page
) -> None:
    until = deployment.folder / "mended"
    inputs = [{"value": n, "until": str(until) if n % 2 else None} for n in range(6)]
    batch = deployment.client.submit(
        "mend", inputs, custom_ids=[f"row {MARKUP} {n}" for n in range(6)]
    )
    batch.wait(60)
    page.goto(f"{flowers['plain'].url}/batch/{batch.id}")
    expect(page.locator(".batch-failure")).to_contain_text(f"row {MARKUP} 1")
    until.touch()
    page.get_by_role("button", name="Retry those that failed with ValueError").click()
    page.get_by_role("button", name="Retry", exact=True).click()
    expect(page.locator("#batch-failures")).to_have_text("No item has failed.")
    expect(page.locator("#batch-details")).to_contain_text("3 items")
    assert batch.wait(60).request_counts.succeeded == 6


def test_a_batch_is_found_by_a_filter_and_words(
    deployment: Deployment, flowers: dict[str, Flower], page: Page
) -> None:
    batch = deployment.client.submit("echo", [1], metadata={"who": MARKUP})
    batch.wait(60)
    page.goto(f"{flowers['plain'].url}/batches")
    page.get_by_role("button", name="Completed").click()
    page.get_by_role("searchbox").fill("WHO=")
    expect(page.locator("#batches-rows tr")).to_have_count(1)
    expect(page.locator(".batch-pair")).to_have_text(f"who={MARKUP}")
    page.get_by_role("button", name="Paused").click()
    expect(page.locator("#batches-empty")).to_have_text("No batch fits.")
    page.reload()
    expect(page.get_by_role("button", name="Paused")).to_have_attribute("aria-pressed", "true")
    page.goto(f"{flowers['plain'].url}/batches?text={quote(MARKUP)}")
    expect(page.locator("#batches-rows tr")).to_have_count(1)


def test_a_completed_batch_with_failed_items_is_marked_and_found(
    deployment: Deployment, flowers: dict[str, Flower], page: Page
) -> None:
    inputs = [{"value": n, "fail": "bug" if n == 7 else None} for n in range(400)]
    flawed = deployment.client.submit("may-fail", inputs)
    good = deployment.client.submit("echo", [1])
    for batch in (flawed, good):
        batch.wait(60)
    page.goto(f"{flowers['plain'].url}/batches")
    row = page.locator(f"tr[data-id={flawed.id}]")
    expect(row.locator(".batch-badge")).to_have_text("completed, 1 failed")
    expect(row.locator(".batch-badge")).to_have_class(re.compile("batch-flawed"))
    expect(row).to_contain_text("took")
    # One of 400 is seen.
    failed = row.locator(".batch-bar-failed").bounding_box()
    assert failed is not None
    assert failed["width"] >= 4
    expect(page.locator(f"tr[data-id={good.id}] .batch-badge")).to_have_text("completed")
    page.get_by_role("button", name="With failed items").click()
    expect(page.locator(f"tr[data-id={good.id}]")).to_have_count(0)
    expect(row).to_be_visible()
    page.reload()
    expect(page.get_by_role("button", name="With failed items")).to_have_attribute(
        "aria-pressed", "true"
    )
    expect(page.locator(f"tr[data-id={good.id}]")).to_have_count(0)


def test_a_batch_that_has_used_its_budget_goes_on_with_a_larger_one(
    deployment: Deployment, flowers: dict[str, Flower], page: Page
) -> None:
    batch = deployment.client.submit(
        "spend", [100] * 12, budget=Budget(tokens=500), max_concurrency=2
    )
    wait_until(
        lambda: batch.record().status is BatchStatus.PAUSED, what="its budget is used", timeout=60
    )
    page.goto(f"{flowers['plain'].url}/batch/{batch.id}")
    expect(page.locator("#batch-reason")).to_contain_text("budget_exceeded")
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("spinbutton", name="Tokens")).to_have_value("1000")
    expect(page.get_by_role("spinbutton", name="US dollars")).to_be_hidden()
    page.get_by_role("button", name="No").click()
    assert batch.record().status is BatchStatus.PAUSED
    page.get_by_role("button", name="Resume").click()
    page.get_by_role("spinbutton", name="Tokens").fill("1")
    page.get_by_role("button", name="Resume").last.click()
    expect(page.locator(".toast")).to_contain_text("larger budget")
    assert batch.record().status is BatchStatus.PAUSED
    page.get_by_role("button", name="Resume").click()
    page.get_by_role("spinbutton", name="Tokens").fill("50000")
    page.get_by_role("button", name="Resume").last.click()
    expect(page.locator("#batch-status")).to_have_text("completed")
    assert batch.wait(60).budget == Budget(tokens=50_000)


def test_an_empty_ledger_and_no_worker_are_seen_at_once(deploy: Deploy, page: Page) -> None:
    register("echo", str, replace=True)
    deployment = deploy()
    flower = Flower(deployment)
    wait_until(lambda: flower.status("/batches") == 200, what="Flower answers", timeout=60)
    page.goto(f"{flower.url}/batches")
    expect(page.locator("#batches-empty")).to_contain_text("batchord submit CHAIN -i inputs.jsonl")
    expect(page.locator("#batches-trouble")).to_contain_text("No worker is alive: start one with")
    batch = deployment.client.submit("echo", [1])
    expect(page.locator("#batches-empty")).to_be_hidden()
    page.goto(f"{flower.url}/batch/{batch.id}")
    expect(page.locator("#batch-trouble")).to_contain_text("No worker is alive")
    batch.cancel()
    expect(page.locator("#batch-trouble")).to_be_hidden()


def test_times_name_their_zone(
    deployment: Deployment, flowers: dict[str, Flower], browser: Browser
) -> None:
    batch = deployment.client.submit("echo", [1])
    batch.wait(60)
    user, password = LOGIN.split(":")
    context = browser.new_context(
        http_credentials={"username": user, "password": password},
        timezone_id="Asia/Tokyo",
        locale="en-GB",
    )
    page = context.new_page()
    page.goto(f"{flowers['plain'].url}/batch/{batch.id}")
    for name in ("Created", "Ended"):
        row = page.locator(".detail-row").filter(has=page.get_by_text(name, exact=True))
        expect(row).to_contain_text("GMT+9")
    expect(page.locator("#batch-details")).to_contain_text("Took")
    context.close()


def test_a_phone_shows_ten_batches_on_three_screens(
    deployment: Deployment, flowers: dict[str, Flower], page: Page
) -> None:
    inputs = [{"value": n, "fail": "bug" if n == 1 else None} for n in range(3)]
    for _ in range(10):
        metadata = {"phone": "yes", "team": "support", "model": "a-model-with-a-long-name"}
        deployment.client.submit("may-fail", inputs, metadata=metadata)
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{flowers['plain'].url}/batches?text=phone%3Dyes")
    rows = page.locator("#batches-rows tr")
    expect(rows).to_have_count(10)
    expect(rows.locator(".batch-flawed")).to_have_count(10)
    bottom = rows.last.evaluate("row => row.getBoundingClientRect().bottom + scrollY")
    assert bottom < 1_700
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_older_batches_are_a_page_away_and_newer_ones_too(
    deployment: Deployment, flowers: dict[str, Flower], page: Page
) -> None:
    first = deployment.client.submit("echo", [0])
    for _ in range(26):
        deployment.client.submit("echo", [0])
    page.goto(f"{flowers['plain'].url}/batches")
    expect(page.locator("#batches-rows tr")).to_have_count(25)
    expect(page.locator(f"tr[data-id={first.id}]")).to_have_count(0)
    page.get_by_role("button", name="Older").click()
    expect(page.locator(f"tr[data-id={first.id}]")).to_be_visible()
    page.get_by_role("button", name="Newer").click()
    expect(page.locator(f"tr[data-id={first.id}]")).to_have_count(0)
    expect(page.locator("#batches-rows tr")).to_have_count(25)


def test_a_page_that_only_reads_has_no_buttons_and_lets_payloads_out_if_told(
    deployment: Deployment, flowers: dict[str, Flower], page: Page
) -> None:
    inputs = [{"value": CANARY, "fail": "bug" if n == 2 else None} for n in range(4)]
    batch = deployment.client.submit("may-fail", inputs)
    batch.wait(60)
    page.goto(f"{flowers['plain'].url}/batch/{batch.id}")
    expect(page.locator(".batch-failure")).to_contain_text("KeyError")
    assert CANARY not in page.content()
    assert "missing" not in page.content()
    assert page.get_by_role("link", name=re.compile("Download")).count() == 0

    page.goto(f"{flowers['reader'].url}/batch/{batch.id}")
    expect(page.locator(".batch-failure")).to_contain_text("missing")
    assert CANARY in page.content()
    assert page.locator("[data-action]").count() == 0
    with page.expect_download() as download:
        page.get_by_role("link", name="Download results").click()
    lines = Path(download.value.path()).read_text().splitlines()
    assert [json.loads(line)["index"] for line in lines] == [0, 1, 2, 3]
    assert download.value.suggested_filename == f"{batch.id}.results.jsonl"


def test_a_task_leads_to_its_batch_and_the_batch_to_its_tasks(
    deployment: Deployment, flowers: dict[str, Flower], page: Page
) -> None:
    flower = flowers["plain"]
    batch = deployment.client.submit("may-fail", [{"value": 1, "fail": "bug"}])
    batch.wait(60)
    wait_until(lambda: flower.tasks(search=f"kwargs:batch_id={batch.id}"), what="Flower knows it")
    page.goto(f"{flower.url}/batch/{batch.id}")
    page.get_by_role("link", name="Its tasks").click()
    expect(page.locator("#tasks-table tbody tr")).to_have_count(1)
    page.locator("#tasks-table tbody a[href*='/task/']").click()
    page.locator("#batch-link").click()
    expect(page.locator("#batch-chain")).to_have_text("may-fail")
    page.locator(".batch-failure").get_by_role("link", name="0").click()
    expect(page.locator("#batch-link")).to_be_visible()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_pages_fit_every_screen(
    deployment: Deployment, flowers: dict[str, Flower], context: BrowserContext, theme: str
) -> None:
    batch = deployment.client.submit("echo", [0], metadata={"long": "x" * 200, "words": "a " * 90})
    batch.wait(60)
    page = context.new_page()
    page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
    for path, boxes in (
        ("/batches", "main section"),
        (f"/batch/{batch.id}", "main section, main dd"),
    ):
        page.goto(f"{flowers['plain'].url}{path}")
        expect(page.locator("#live-dot")).to_have_class(re.compile("status-dot-live"))
        assert page.evaluate("document.documentElement.dataset.bsTheme") == theme
        for width in (320, 390, 768, 1000, 1100, 1200, 1280):
            page.set_viewport_size({"width": width, "height": 844})
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
            cut = f"""[...document.querySelectorAll('{boxes}')]
                .filter(box => box.scrollWidth > box.clientWidth).length"""
            assert page.evaluate(cut) == 0, (path, width)


def test_a_page_says_when_flower_does_not_answer(deployment: Deployment, page: Page) -> None:
    flower = Flower(deployment)
    wait_until(lambda: flower.status("/batches") == 200, what="Flower answers", timeout=30)
    page.goto(f"{flower.url}/batches")
    expect(page.locator("#live-text")).to_have_text("Live")
    flower.process.kill()
    expect(page.locator("#live-text")).to_have_text("Flower does not answer")
