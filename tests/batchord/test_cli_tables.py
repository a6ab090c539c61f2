"""Tables in a terminal: what matters stays whole however narrow it is, and nothing is obeyed."""

import io
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console, RenderableType

from batchord.chains import Usage
from batchord.ledger.budget import Budget
from batchord.ledger.models import (
    BatchRecord,
    BatchStatus,
    Item,
    ItemError,
    ItemStatus,
    RequestCounts,
)
from batchord.output import cost_format, render

LONG = "a long answer that goes on and on " * 9
ITEMS = [
    Item(index=0, custom_id="customer-0", status=ItemStatus.SUCCEEDED, output=LONG),
    Item(index=1, custom_id="[/b]:smile:", status=ItemStatus.SUCCEEDED, output="\x1b[2J\x07"),
    Item(
        index=100_000,
        custom_id="c" * 500,
        status=ItemStatus.FAILED,
        error=ItemError(code="authentication_error", message=LONG, step="summary.Chat"),
    ),
]


def shown(table: RenderableType, columns: int) -> list[str]:
    """The lines that a terminal of this many columns is given."""
    out = Console(width=columns, file=io.StringIO(), markup=False, emoji=False)
    out.print(table)
    assert isinstance(out.file, io.StringIO)
    lines = out.file.getvalue().splitlines()
    assert max(map(len, lines)) <= columns
    return lines


@pytest.mark.parametrize("columns", [80, 100])
def test_a_result_is_one_line_and_its_place_and_status_are_whole(columns: int) -> None:
    lines = shown(render.results_table(ITEMS, rows=10, width=90), columns)

    assert len(lines) == 3 + len(ITEMS)
    assert [line.split()[0] for line in lines[3:]] == ["0", "1", "100000"]
    assert "│ succeeded │ a long answer that" in lines[3]
    assert "│ failed    │ authentication_error: a" in lines[5]
    assert lines[3].endswith("…")


@pytest.mark.parametrize("columns", [80, 100])
def test_names_and_outputs_are_shown_and_not_obeyed(columns: int) -> None:
    table = render.results_table(ITEMS, rows=10, width=90)

    row = shown(table, columns)[4]

    assert "[/b]:smile:" in row
    assert row.rstrip().endswith("\ufffd[2J\ufffd")


def test_of_an_answer_to_a_request_its_text_is_shown() -> None:
    choices = [{"message": {"role": "assistant", "content": "just this"}}]
    bodies = [{"choices": choices}, {"choices": [{"text": "just that"}]}, {"data": [1]}]
    items = [
        Item(
            index=i,
            status=ItemStatus.SUCCEEDED,
            output={"status_code": 200, "request_id": "req_1", "body": body},
        )
        for i, body in enumerate(bodies)
    ]

    lines = shown(render.results_table(items, rows=10, width=90), 80)

    said = [line.split("│")[-1].strip() for line in lines[3:]]
    assert said == ["just this", "just that", '{"data": [1]}']


def test_no_more_rows_than_asked_for_are_shown() -> None:
    assert render.results_table(ITEMS, rows=2, width=90).row_count == 2


@pytest.mark.parametrize("columns", [80, 100])
def test_a_failure_is_named_whole_by_its_place_and_code(columns: int) -> None:
    lines = shown(render.failures_table([ITEMS[2]]), columns)

    assert any(
        line.startswith("100000 │ ") and "│ authentication_error │" in line for line in lines
    )


@pytest.mark.parametrize("columns", [80, 100])
def test_the_id_and_status_of_a_batch_are_whole(columns: int) -> None:
    record = BatchRecord(
        usage=Usage(input_tokens=1_200_000, output_tokens=34_567, cost_nanos=12_345_678_901),
        id=f"batch_{'0' * 24}",
        chain="describe-each-package-with-care",
        status=BatchStatus.IN_PROGRESS,
        request_counts=RequestCounts(total=20_000, succeeded=19_000, failed=999),
        created_at=datetime.now(UTC) - timedelta(hours=26),
    )

    row = shown(render.batches_table([record], width=columns), columns)[2]

    assert row.startswith(record.id)
    for part in ("in_progress", "19999/20000", " 999 ", " 1d"):
        assert part in row
    wide = shown(render.batches_table([record], width=120), 120)[2]
    for part in (record.id, " 1.23M ", " $12.35 ", " 1d"):
        assert part in wide


def test_a_cost_is_shown_as_far_as_it_is_known_and_beside_its_budget() -> None:
    record = BatchRecord(
        id=f"batch_{'0' * 24}",
        chain="ask",
        status=BatchStatus.IN_PROGRESS,
        request_counts=RequestCounts(total=10),
        created_at=datetime.now(UTC),
    )

    def said(usage: Usage | None, budget: Budget | None = None) -> tuple[list[str], str]:
        one = record.model_copy(update={"usage": usage, "budget": budget})
        return cost_format.spent(one), cost_format.spent_briefly(one)

    used = Usage(requests=1, input_tokens=1_500, output_tokens=10)
    assert said(None) == ([], "")
    assert said(Usage(requests=1)) == ([], "")
    assert said(used) == (
        ["1,510 tokens (1,500 in, 10 out)", "cost unknown"],
        "1.51k tokens, cost unknown",
    )
    assert said(Usage(input_tokens=1, cost_nanos=150))[1] == "1 tokens, $0.00000015"
    assert said(None, Budget(usd=20)) == (["$0 of $20.00"], "0 tokens, $0 of $20.00")
    both = Budget(usd=0.5, tokens=100_000)
    priced = used.model_copy(update={"cost_nanos": 250_000_000})
    assert said(priced, both) == (
        ["1,510 of 100,000 tokens (1,500 in, 10 out)", "$0.25 of $0.5"],
        "1.51k of 100k tokens, $0.25 of $0.5",
    )
