"""The table of a sample: inputs, answers, and what each of them used."""

import json
from collections.abc import Sequence
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from batchord.chains import Usage
from batchord.ledger.models import Item, ItemStatus
from batchord.output import cost_format
from batchord.output.render import one_line, said

#: Characters of an input and of an answer.
_WIDTH: Final = 60


def table(inputs: Sequence[Any], items: Sequence[Item], usage: Usage | None) -> Table:
    """Return each input beside its answer or error; `usage` is that of all of them."""
    found = Table(title="Sample", title_justify="left", show_edge=False, pad_edge=False)
    priced = usage is not None and usage.cost_nanos is not None
    found.add_column("#", justify="right", no_wrap=True)
    found.add_column("input", max_width=_WIDTH)
    found.add_column("answer or error", max_width=_WIDTH)
    for name in ("tokens", "cost") if priced else ("tokens",):
        found.add_column(name, justify="right", no_wrap=True)
    for value, item in zip(inputs, items, strict=True):
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        style = "" if item.status is ItemStatus.SUCCEEDED else "red"
        cells: list[Text | str] = [
            Text(one_line(text, _WIDTH), no_wrap=True, overflow="ellipsis"),
            Text(said(item), no_wrap=True, overflow="ellipsis", style=style),
            _tokens(item),
        ]
        found.add_row(str(item.index), *cells, *([_cost(item)] if priced else []))
    return found


def _tokens(item: Item) -> str:
    if item.cached:
        return "cached"
    tokens = None if item.usage is None else item.usage.total_tokens
    return "-" if tokens is None else f"{tokens:,}"


def _cost(item: Item) -> str:
    cost = None if item.usage is None or item.cached else item.usage.cost_usd
    return "-" if cost is None else cost_format.dollars(cost)
