"""Compare two prompts over a data set: both answer each row, and a grader scores each answer.

    batchord up                                  # elsewhere
    python -m examples.compare_prompts rows.jsonl a.txt b.txt -o comparison.csv

The rows are JSON objects, whose fields the prompts name in braces. What was answered and graded
before is taken from the cache: a second run, with one prompt changed, pays for that prompt alone.
The table has a row for each row of the data set, with both answers, scores and costs side by side.
"""

import argparse
import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, Field

from batchord import Batch, Client, Item

Row = dict[str, Any]

GRADER: Final = """Score this answer from 1 (useless) to 5 (could not be better).
The task was:
{task}
The answer is:
{answer}"""


class Grade(BaseModel):
    """The grader's opinion of an answer."""

    reason: str = Field(description="One sentence.")
    score: int = Field(ge=1, le=5)


def compare(
    client: Client, rows: Sequence[Row], prompts: Mapping[str, str], model: str | None = None
) -> list[Row]:
    """Return the rows with the answer, score and cost of each prompt, under its name.

    A cost is in US dollars, and that of the answer alone; None if its price is unknown.
    """
    # All of them at once: the workers take turns between batches.
    answering = {
        name: client.submit(prompt=text, model=model, inputs=rows, cache=True)
        for name, text in prompts.items()
    }
    table = [dict(row) for row in rows]
    for name, batch in answering.items():
        for row, item in zip(table, batch.results(), strict=True):
            row |= {f"{name}_{key}": value for key, value in _answer(item).items()}
    for name, text in prompts.items():
        for row, grade in _grades(client, table, name, text, model):
            row |= {f"{name}_score": grade.score, f"{name}_reason": grade.reason}
    return table


def _answer(item: Item) -> Row:
    return {
        "answer": item.output,
        "error": item.error and item.error.code,
        "cost_usd": item.usage and item.usage.cost_usd,
    }


def _grades(
    client: Client, table: Sequence[Row], name: str, prompt: str, model: str | None
) -> Iterator[tuple[Row, Grade]]:
    """Yield each row that has an answer, with its grade."""
    answered = [row for row in table if row[f"{name}_answer"] is not None]
    if not answered:
        return
    tasks = [{"task": prompt.format(**row), "answer": row[f"{name}_answer"]} for row in answered]
    batch: Batch[Grade] = client.submit(
        prompt=GRADER, model=model, output_type=Grade, inputs=tasks, cache=True
    )
    for row, item in zip(answered, batch.results(), strict=True):
        if item.error is None:
            yield row, item.output


def summary(table: Sequence[Row], names: Sequence[str]) -> str:
    """Return mean scores, failures and costs, a line for each prompt."""
    lines = [f"{'prompt':12} {'score':>6} {'failed':>7} {'cost':>10}"]
    for name in names:
        scores = [row[f"{name}_score"] for row in table if f"{name}_score" in row]
        costs = [row[f"{name}_cost_usd"] for row in table]
        failed = sum(row[f"{name}_error"] is not None for row in table)
        mean = f"{sum(scores) / len(scores):.2f}" if scores else "-"
        cost = "unknown" if None in costs else f"${sum(costs):.4f}"
        lines.append(f"{name:12} {mean:>6} {failed:>7} {cost:>10}")
    return "\n".join(lines)


def write(table: Sequence[Row], path: Path) -> None:
    """Write the table as CSV."""
    columns = list(dict.fromkeys(name for row in table for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(table)


def main() -> None:
    """Run the comparison that the command line names."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("rows", type=Path)
    parser.add_argument("prompts", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("-m", "--model", help="else OPENAI_MODEL")
    given = parser.parse_args()
    rows = [json.loads(line) for line in given.rows.read_text().splitlines() if line.strip()]
    prompts = {path.stem: path.read_text() for path in given.prompts}
    with Client() as client:
        table = compare(client, rows, prompts, given.model)
    write(table, given.output)
    print(summary(table, list(prompts)))


if __name__ == "__main__":
    main()
