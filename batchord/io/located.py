"""Where in the input an item that has failed stands: the line or the row of the file."""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from batchord.io.input_file import InputFile
from batchord.ledger.models import Item

#: Codes of errors that a person mends in the input.
_OF_INPUT: Final = ("prompt_field_missing", "invalid_input")

#: Takes items in input order, and gives them with the place in the message of such an error.
Locate = Callable[[Iterable[Item]], Iterable[Item]]


def unlocated(items: Iterable[Item]) -> Iterable[Item]:
    """Return the items as they are: their input is unknown."""
    return items


def located(source: InputFile, lines: Callable[[], Iterable[int]] | None = None) -> Locate:
    """Return what adds places to items whose inputs are the values of this file.

    The file is read again as far as there are such errors. `lines`: the lines of the items, if
    these are not all of the file's values.
    """

    def locate(items: Iterable[Item]) -> Iterator[Item]:
        numbers = enumerate(lines() if lines else (number for number, _ in source))
        index, line = -1, 0
        for item in items:
            if item.error is None or item.error.code not in _OF_INPUT:
                yield item
                continue
            while index < item.index:
                index, line = next(numbers)
            message = f"{source.place} {line}: {item.error.message}"
            error = item.error.model_copy(update={"message": message})
            yield item.model_copy(update={"error": error})

    return locate
