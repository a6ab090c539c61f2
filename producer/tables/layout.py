"""The columns of a table of results: those of the inputs, the fields of the outputs, and ours."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple

from batchord.ledger.models import Item
from batchord.producer.tables.kinds import Kind, kind_of_value, merged

#: Columns that stand behind those of inputs and outputs, with their kinds.
OWN: Final[dict[str, Kind]] = {
    "status": "text",
    "error_code": "text",
    "error": "text",
    "cost_usd": "float",
}

#: Fields of outputs that become columns; beyond, an output is one column.
_MOST_COLUMNS: Final = 500

#: An input as it was submitted, and what has become of it.
Pair = tuple[Any, Item]


class Column(NamedTuple):
    """A column: its name in the table, where its cells come from, and their kind."""

    name: str
    side: Literal["input", "output", "own"]
    #: The field there; None: the whole value.
    field: str | None
    kind: Kind


class Side:
    """The values of one side, inputs or outputs, as far as they have been seen."""

    def __init__(self, fields: Mapping[str, Kind] | None, *, typed: bool) -> None:
        self._typed = typed
        self._fields: dict[str, Kind] = dict(fields or {})
        self._whole: Kind = "null"
        #: Whether all values so far are objects; None: there has been no value.
        self._objects: bool | None = None if fields is None else True

    def see(self, value: Any) -> None:
        """Take another value into account."""
        if isinstance(value, dict) and self._objects is not False:
            self._objects = True
            for name, cell in value.items():
                before = self._fields.get(name)
                if before is None:
                    self._fields[name] = self._kind(cell)
                elif self._typed:
                    self._fields[name] = merged(before, kind_of_value(cell))
            if len(self._fields) > _MOST_COLUMNS:
                self._objects, self._whole = False, "json"
        elif value is not None:
            # Objects before it are fields of a struct no more.
            self._whole = "json" if self._objects else merged(self._whole, self._kind(value))
            self._objects = False

    def _kind(self, value: Any) -> Kind:
        return kind_of_value(value) if self._typed else "json"

    def columns(self) -> dict[str | None, Kind]:
        """Return the fields with their kinds; None stands for the whole value."""
        return dict(self._fields.items()) if self._objects else {None: self._whole}


class Shape:
    """The columns of a table and their types, as far as they have been seen."""

    def __init__(self, output_fields: Mapping[str, Kind] | None, *, typed: bool) -> None:
        self._inputs = Side(None, typed=typed)
        self._outputs = Side(output_fields, typed=typed)
        #: Columns of the inputs that hold the custom_ids; None: no item has one.
        self._ids: set[str] | None = None

    def see(self, pairs: Iterable[Pair]) -> None:
        """Take these rows into account."""
        for given, item in pairs:
            self._inputs.see(given)
            if item.output is not None:
                self._outputs.see(item.output)
            if item.custom_id is not None and self._ids != set():
                same = {name for name, cell in _cells(given) if str(cell) == item.custom_id}
                self._ids = same if self._ids is None else self._ids & same

    def columns(self) -> list[Column]:
        """Return the columns in their order; a name that is taken gets an ending."""
        wanted: list[tuple[str, Literal["input", "output", "own"], str | None, Kind]] = []
        if self._ids is not None and not self._ids:
            wanted.append(("custom_id", "own", "custom_id", "text"))
        wanted += [(f or "input", "input", f, k) for f, k in self._inputs.columns().items()]
        wanted += [(f or "output", "output", f, k) for f, k in self._outputs.columns().items()]
        wanted += [(name, "own", name, kind) for name, kind in OWN.items()]
        # The columns of the input keep their names, whatever comes before or behind them.
        taken = {name for name, side, _, _ in wanted if side == "input"}
        columns = []
        for name, side, field, kind in wanted:
            if side != "input":
                name = _free(name, taken)
                taken.add(name)
            columns.append(Column(name, side, field, kind))
        return columns


def _cells(given: Any) -> Iterable[tuple[str, Any]]:
    return given.items() if isinstance(given, dict) else ()


def _free(name: str, taken: set[str]) -> str:
    endings = ["", "_output", *(f"_output_{number}" for number in range(2, len(taken) + 3))]
    return next(name + ending for ending in endings if name + ending not in taken)


def renamed(columns: Iterable[Column]) -> list[str]:
    """Say of each column whose name was taken what it is called now."""
    return [
        f"the column {column.name!r} is the {column.field or column.side!r} of the results, as the "
        "input has a column of that name"
        for column in columns
        if column.side != "input" and column.name != (column.field or column.side)
    ]


def cells(columns: Iterable[Column], pair: Pair) -> list[Any]:
    """Return the JSON values of a row."""
    given, item = pair
    sides = {"input": given, "output": item.output, "own": None}
    return [
        _own(item, column.field)
        if column.side == "own"
        else _cell(sides[column.side], column.field)
        for column in columns
    ]


def _cell(value: Any, field: str | None) -> Any:
    if field is None:
        return value
    return value.get(field) if isinstance(value, dict) else None


def _own(item: Item, field: str | None) -> Any:
    match field:
        case "custom_id":
            return item.custom_id
        case "status":
            return item.status.value
        case "error_code":
            return item.error.code if item.error else None
        case "error":
            return item.error.message if item.error else None
        case _:
            return _cost(item)


def _cost(item: Item) -> float | None:
    """Return US dollars; None if the price of a call is unknown."""
    usage = item.usage
    if usage is None or usage.cost_nanos is None or usage.unpriced_requests:
        return None
    return usage.cost_nanos / 1e9
