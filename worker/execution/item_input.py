"""The arguments of a chain for an item: its input, and the caller's config."""

import json
from typing import Any

from batchord.chains import RegisteredChain
from batchord.chains.config import RunnableConfig
from batchord.chains.langchain.objects import load
from batchord.ledger.storage.item_transitions import Claim


def input_of(chain: RegisteredChain, claim: Claim) -> Any:
    """Return the item's input as the chain wants it.

    Raises:
        InvalidInput: it does not fit, or holds objects of LangChain's, which is not installed here.
    """
    return load(chain.validate_json(claim.input), claim.types)


def config_of(claim: Claim) -> RunnableConfig:
    """Return the caller's config, with the item's names in its metadata, for traces.

    The names begin with `batchord_`: `batch_id`, `index`, `custom_id` where there is one, and
    `attempt`, from 1.
    """
    config: RunnableConfig = json.loads(claim.config or "{}")
    item: dict[str, Any] = {"batchord_attempt": claim.attempt}
    if claim.claim_request is not None:
        item["batchord_batch_id"] = claim.claim_request.batch_id
        item["batchord_index"] = claim.claim_request.index
    if claim.custom_id is not None:
        item["batchord_custom_id"] = claim.custom_id
    config["metadata"] = {**config.get("metadata", {}), **item}
    return config
