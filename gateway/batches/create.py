"""`POST /v1/batches`: what can be said at once is checked, and the batch is recorded."""

from collections.abc import Mapping
from typing import Any, Final

from batchord.chains.steps.raw_request import PATHS, REQUESTS
from batchord.gateway.batches.lookup import find
from batchord.gateway.batches.objects import batch_object
from batchord.gateway.batches.quotas import admit, at_most
from batchord.gateway.batches.submission import (
    DAY_BUDGET,
    OPTIONS,
    fingerprint_of,
    submit_options,
)
from batchord.gateway.calls import Call
from batchord.gateway.errors import ApiError, invalid, not_found
from batchord.gateway.lifetimes import ttl_of
from batchord.ledger.core.failpoints import crash_point
from batchord.ledger.core.message_ids import new_batch_id
from batchord.ledger.errors import SubmitRefused
from batchord.ledger.storage.api_files import ApiFile
from batchord.producer.completion_window import window_seconds
from batchord.producer.submit_options import MAX_IDEMPOTENCY_KEY, Submission

ENDPOINTS: Final = tuple(f"/v1{path}" for path in PATHS)

_OPENAI: Final = (
    "input_file_id",
    "endpoint",
    "completion_window",
    "metadata",
    "output_expires_after",
)


def create(call: Call) -> dict[str, Any]:
    """Create a batch, in `validating`; under an Idempotency-Key that was used, return that one."""
    body = call.body
    for name in body:
        if name not in (*_OPENAI, *OPTIONS):
            raise invalid(f"Unknown parameter: '{name[:80]}'.", name[:80], "unknown_parameter")
    key = _key(call)
    file = _file(call)
    fields = _fields(call, file)
    window = float(fields["window"])
    batch_id, fingerprint = new_batch_id(), fingerprint_of(body)
    if not call.backend.batches.known(call.tenant.name, key):
        admit(call, fields["options"])
    crash_point("batch-before-create")
    with at_most(call):
        made = call.backend.batches.create(
            batch_id,
            {**fields, "fingerprint": fingerprint},
            window=window,
            key=key,
            most_batches=call.tenant.max_batches,
            most_items=call.tenant.max_items,
        )
    crash_point("batch-after-create")
    found = find(call, made)
    if found is None:
        raise not_found("batch", made)
    if found.api.fingerprint != fingerprint:
        raise ApiError(
            400,
            "The Idempotency-Key was used for another batch: use a new key",
            type_="idempotency_error",
            param="Idempotency-Key",
        )
    return batch_object(found)


def _key(call: Call) -> str | None:
    key = call.headers.get("idempotency-key")
    if key is not None and not 0 < len(key) <= MAX_IDEMPOTENCY_KEY:
        raise invalid(
            f"Idempotency-Key: a text of 1 to {MAX_IDEMPOTENCY_KEY} characters", "Idempotency-Key"
        )
    return key


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if value is None:
        raise invalid(f"Missing required parameter: '{name}'.", name, "missing_required_parameter")
    if not isinstance(value, str):
        raise invalid(f"Invalid type for '{name}': expected a string.", name, "invalid_type")
    return value


def _file(call: Call) -> ApiFile:
    file_id = _text(call.body, "input_file_id")
    file = call.backend.files.get(call.tenant.name, file_id)
    if file is None:
        raise not_found("file", file_id)
    return file


def _fields(call: Call, file: ApiFile) -> dict[str, Any]:
    body = call.body
    endpoint = _text(body, "endpoint")
    if endpoint not in ENDPOINTS:
        raise invalid(
            f"Invalid value: {endpoint[:80]!r}. Supported values are: {', '.join(ENDPOINTS)}.",
            "endpoint",
            "invalid_value",
        )
    completion_window = _text(body, "completion_window")
    metadata = body.get("metadata")
    options = {name: body[name] for name in OPTIONS if body.get(name) is not None}
    options.setdefault("priority", call.tenant.priority)
    _check(metadata, completion_window, options)
    if call.tenant.budget_usd_per_day is not None:
        options[DAY_BUDGET] = True
    if call.tenant.models is not None:
        options["models"] = list(call.tenant.models)
    return {
        "tenant": call.tenant.name,
        "input_file_id": file.id,
        "lines": str(file.lines),
        "endpoint": endpoint,
        "completion_window": completion_window,
        "window": str(window_seconds(completion_window)),
        "metadata": metadata,
        "output_ttl": ttl_of(body.get("output_expires_after"), "output_expires_after"),
        "options": options,
    }


def _check(metadata: Any, completion_window: str, options: dict[str, Any]) -> None:
    """Raise ApiError (400) for what no batch may have."""
    budget = options.get("budget")
    if budget is not None and not (isinstance(budget, dict) and budget.keys() <= {"usd", "tokens"}):
        raise invalid('budget: {"usd": ..., "tokens": ...}, or one of them', "budget")
    if metadata is not None and not isinstance(metadata, dict):
        raise invalid(
            "Invalid type for 'metadata': expected an object.", "metadata", "invalid_type"
        )
    try:
        Submission(
            chain=REQUESTS,
            inputs=(),
            metadata=metadata,
            completion_window=completion_window,
            **submit_options(options),
        ).check()
    except SubmitRefused as error:
        raise invalid(str(error), str(error).partition(":")[0], "invalid_value") from None
