"""Inputs for `describe-package` from what is installed here: real text that every machine has.

    python -m examples.make_inputs -o inputs.jsonl

Four of them are bad on purpose, each in another way; `--no-bad` leaves those out.
"""

import argparse
import importlib.metadata
import json
import re
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

Line = dict[str, Any]

#: Characters of a description that are kept: its first sentence or two.
OPENING = 120
#: Characters of a text that no small model can take: its context holds about 1,000 tokens.
TOO_LONG = 40_000

#: What tells the markup of a README from its prose.
_MARKUP = ("://", "|", "<", "](", ":target:", "::", "`_")


def installed() -> Iterator[dict[str, str]]:
    """Name, summary and description of each installed distribution, by name, once each."""
    seen: dict[str, dict[str, str]] = {}
    for distribution in importlib.metadata.distributions():
        fields = distribution.metadata.json
        name, summary = str(fields.get("name", "")), str(fields.get("summary", ""))
        if name and summary:
            known = {"name": name, "summary": summary}
            seen.setdefault(
                name.lower(), known | {"description": str(fields.get("description", ""))}
            )
    for _, package in sorted(seen.items()):
        yield package


def opening(description: str) -> str:
    """The first paragraph of prose on one line, cut at a word; empty without prose."""
    for paragraph in re.split(r"\n\s*\n", description):
        text = " ".join(paragraph.split()).replace("`", "").replace("*", "")
        if re.match(r"[A-Za-z].*[.:]$", text) and not any(mark in text for mark in _MARKUP):
            return text if len(text) <= OPENING else text[:OPENING].rpartition(" ")[0]
    return ""


def good_lines(packages: list[dict[str, str]]) -> Iterator[Line]:
    for package in packages:
        described = {"description": opening(package["description"])}
        yield {"custom_id": package["name"], "input": package | described}


def bad_lines(packages: list[dict[str, str]]) -> Iterator[Line]:
    """One input for each way to fail, with the error's code behind it."""
    some = {"name": "left-pad", "summary": "Pads text on the left.", "description": ""}
    endless = " ".join(package["summary"] for package in packages) + " "
    endless = (endless * (TOO_LONG // len(endless) + 1))[:TOO_LONG]
    without_summary = {"name": some["name"], "description": some["description"]}
    # prompt_field_missing, found by the prompt
    yield {"custom_id": "bad-missing-field", "input": without_summary}
    # invalid_input, raised by the chain's own first step
    yield {"custom_id": "bad-wrong-type", "input": some | {"summary": 404}}
    # bad_request, the answer of the model's server
    yield {"custom_id": "bad-too-long", "input": some | {"description": endless}}
    # ValueError, any exception of a step
    yield {"custom_id": "bad-empty", "input": dict.fromkeys(some, "")}


def mixed(good: list[Line], bad: list[Line]) -> Iterator[Line]:
    """The bad lines spread evenly among the good ones."""
    stride = max(1, len(good) // (len(bad) + 1))
    for index, line in enumerate(good, start=1):
        yield line
        if bad and index % stride == 0:
            yield bad.pop(0)
    yield from bad


def main() -> None:
    """Write one JSON line for each input."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("-o", "--output", type=Path, help="a file; standard output if not given")
    parser.add_argument("--count", type=int, default=40, help="how many packages at most")
    parser.add_argument("--no-bad", action="store_true", help="leave out the bad inputs")
    options = parser.parse_args()
    packages = list(installed())[: options.count]
    bad = [] if options.no_bad else list(bad_lines(packages))
    target = options.output.open("w", encoding="utf-8") if options.output else None
    with target or nullcontext(sys.stdout) as file:
        for line in mixed(list(good_lines(packages)), bad):
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
