"""The options that describe a chain on the command line, in place of a registered name."""

import json
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from batchord.chains import ChainSpec
from batchord.chains.errors import BadSpec
from batchord.chains.specs.chain_spec import chain_spec
from batchord.chains.specs.field_types import fields
from batchord.chains.steps.raw_request import REQUESTS
from batchord.commands.options import chain_argument, model_option
from batchord.local.local_model import MODEL

F = TypeVar("F", bound=Callable[..., Any])


def chain_options(command: F) -> F:
    """Add CHAIN, and the options that describe a chain in its place.

    The command gets `chain`, a name, a `ChainSpec` or None, and `model`, which is None if it is
    part of the spec.
    """

    @wraps(command)
    def with_chain(
        *args: Any,
        chain: str | None,
        model: str | None,
        prompt: str | None,
        system: str | None,
        schema: str | None,
        embed: str | None,
        **given: Any,
    ) -> Any:
        if prompt is None and embed is None:
            if system is not None or schema is not None:
                raise click.UsageError("--system and --schema go with a --prompt")
            return command(*args, chain=chain, model=model, **given)
        if chain is not None:
            raise click.UsageError(
                f"CHAIN ({chain}) and a prompt: give one of them, as a prompt is a chain"
            )
        if model is None and given.get("local_model"):
            model = MODEL
        spec = _spec(prompt=prompt, system=system, schema=schema, embed=embed, model=model)
        return command(*args, chain=spec, model=None, **given)

    command_with_options: Any = with_chain
    for option in (
        click.option(
            "--embed", metavar="COLUMN", help="In place of CHAIN: turn this field into vectors."
        ),
        click.option(
            "--schema",
            metavar="FILE|FIELDS",
            help="With --prompt: a file with the JSON schema of an answer, or its fields, as "
            "urgency:low|high,score:float,tags:list[str]; also int, bool, and str, the default.",
        ),
        click.option("--system", metavar="TEXT|@FILE", help="With --prompt: the system message."),
        click.option(
            "--prompt",
            metavar="TEXT|@FILE",
            help="In place of CHAIN: ask a model this about each input, with its fields in braces, "
            'as "Urgent? {subject}: {body}".',
        ),
        model_option,
        chain_argument,
    ):
        command_with_options = option(command_with_options)
    return cast(F, command_with_options)


def stands_for(chain: str | ChainSpec) -> str:
    """Return the registered chain by which workers that can run this one are known."""
    return REQUESTS if isinstance(chain, ChainSpec) else chain


def name_of(chain: str | ChainSpec) -> str:
    """Return the name that batches of the chain record."""
    return chain.name if isinstance(chain, ChainSpec) else chain


def _spec(**given: str | None) -> ChainSpec:
    prompt, system = (_text(f"--{name}", given[name]) for name in ("prompt", "system"))
    try:
        return chain_spec(
            prompt=prompt,
            system=system,
            output_schema=schema_in(given["schema"]),
            embed=given["embed"],
            model=given["model"],
        )
    except BadSpec as error:
        raise click.UsageError(str(error)) from None


def _text(option: str, value: str | None) -> str | None:
    """Return the text of an option; behind an @ stands the file that has it."""
    if value is None or not value.startswith("@"):
        return value
    return _content(option, value[1:]).rstrip("\n")


def _content(option: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise click.UsageError(f"{option}: cannot read {path!r}: {why}") from None


def schema_in(value: str | None) -> Any:
    """Return the JSON schema in a file, or the one of `field:type,...`."""
    if value is None:
        return None
    if not value.endswith(".json") and not Path(value).is_file():
        try:
            return fields(value)
        except ValueError as error:
            raise click.UsageError(f"--schema: {error}, or name a file") from None
    try:
        found = json.loads(_content("--schema", value))
    except ValueError as error:
        raise click.UsageError(f"--schema: {value!r} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise click.UsageError(f"--schema: {value!r} holds no JSON schema, which is an object")
    # As a request has it: {"type": "json_schema", "json_schema": {"name", "schema"}}, or the inner.
    found = found.get("json_schema", found)
    return found["schema"] if isinstance(found.get("schema"), dict) else found
