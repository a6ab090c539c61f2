"""What a tenant may have at a time and in a day."""

from typing import Any

from batchord.gateway.calls import Call
from batchord.ledger.storage.api_files import ApiFile


def admit(call: Call, file: ApiFile, key: str | None, fields: dict[str, Any]) -> None:
    """Raise ApiError (429) if the tenant has as much as its key allows; nothing is written."""
