"""The chain of a call: a registered name, or what a prompt and its settings say."""

from typing import Any

from batchord.chains.errors import BadSpec
from batchord.chains.specs.chain_spec import ChainSpec, chain_spec
from batchord.ledger.errors import SubmitRefused


def chosen_chain(
    chain: Any,
    *,
    prompt: str | None = None,
    system: str | None = None,
    model: str | None = None,
    embed: str | None = None,
    output_type: Any = None,
) -> str | ChainSpec:
    """Return the chain that these arguments of `Client.submit` name or describe.

    Raises:
        SubmitRefused: they describe none, or two.
    """
    if prompt is None and embed is None:
        for name, value in {"system": system, "model": model}.items():
            if value is not None:
                raise SubmitRefused(f"{name}: goes with a prompt, a registered chain has its own")
        if chain is None:
            raise SubmitRefused("no chain: give the name that it is registered under, or a prompt")
        found: str | ChainSpec = chain
        return found
    if chain is not None:
        raise SubmitRefused(
            f"a chain ({_label(chain)}) and a prompt: give one of them, as a prompt is a chain"
        )
    try:
        return chain_spec(
            prompt=prompt, system=system, model=model, embed=embed, output_schema=output_type
        )
    except BadSpec as error:
        raise SubmitRefused(str(error)) from None


def _label(chain: Any) -> str:
    return repr(chain)[:100] if isinstance(chain, str) else type(chain).__name__
