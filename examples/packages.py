"""`describe-package`: what an installed Python package is for, from its own description.

An input is `{"name": ..., "summary": ..., "description": ...}`, all text; an output is a
`PackageCard`. Prompt and schema suit the smallest of models: examples show the form, and a pattern
ends the summary.

    python -m examples.make_inputs -o inputs.jsonl
    batchord run describe-package --chains examples.packages -i inputs.jsonl -o out.jsonl
"""

from operator import itemgetter
from typing import Any, Literal

from pydantic import BaseModel, Field

from batchord.chains import Chat, InvalidInput, Lambda, Parallel, Prompt, register

PackageInput = dict[str, Any]

#: One sentence of 3 to 12 words: a small model often finds no end by itself.
LETTER = "[A-Za-z0-9']"
WORD = f"{LETTER}{{1,16}}(-{LETTER}{{1,16}})?"
SENTENCE = rf"^[A-Z]{LETTER}{{0,15}}( {WORD}){{2,11}}\.$"


class About(BaseModel):
    """The answer that the model is asked for."""

    summary: str = Field(pattern=SENTENCE)
    category: Literal["data", "network", "system", "testing", "text"]


class PackageCard(BaseModel):
    """The answer, under the package's name."""

    name: str
    summary: str
    category: str


def tidy(package: PackageInput) -> dict[str, str]:
    """The same fields on one line each. InvalidInput if one is not text."""
    for field, value in package.items():
        if not isinstance(value, str):
            raise InvalidInput(f"{field} must be text, not {type(value).__name__}")
    if not any(package.values()):
        raise ValueError("there is nothing to describe: all fields are empty")
    return {field: " ".join(value.split()) for field, value in package.items()}


def card(found: dict[str, Any]) -> PackageCard:
    """The two branches as one."""
    return PackageCard(name=found["name"], **found["about"].model_dump())


ask = Prompt(
    [
        ("system", "You catalogue Python packages as JSON."),
        ("user", "pandas: Powerful data structures for data analysis, time series, and statistics"),
        ("assistant", '{{"summary":"Analyses tables and time series.","category":"data"}}'),
        ("user", "psutil: Cross-platform lib for process and system monitoring"),
        ("assistant", '{{"summary":"Tells how busy a machine is.","category":"system"}}'),
        ("user", "flask: A simple framework for building complex web applications"),
        ("assistant", '{{"summary":"Builds web applications.","category":"network"}}'),
        ("user", "{name}: {summary}\n{description}"),
    ]
)

describe_package = (
    Lambda(tidy)
    | Parallel(name=Lambda(itemgetter("name"), name="name"), about=ask | Chat(output_type=About))
    | Lambda(card)
)

register("describe-package", describe_package, input_type=PackageInput, output_type=PackageCard)
