"""How providers say that an account cannot pay: one table, to which another is one line."""

from collections.abc import Mapping
from typing import Any

#: Values of `code` or `type`, with the statuses that they come with.
_CODES = {
    "insufficient_quota": (429,),  # OpenAI
    "billing_not_active": (429,),  # OpenAI: continue #9942
    "billing_hard_limit_reached": (400, 429),  # OpenAI
}
#: Messages in full, in lower case.
_MESSAGES = {
    "insufficient balance": (400, 402, 403, 429),  # DeepSeek: aider #4851
}
_PAYMENT_REQUIRED = 402


def cannot_pay(status: int, said: Mapping[str, Any]) -> bool:
    """Tell whether an answer with this status and error says that the account cannot pay."""
    if status == _PAYMENT_REQUIRED:
        return True
    if any(status in _CODES.get(str(said.get(key)), ()) for key in ("code", "type")):
        return True
    message = str(said.get("message")).strip().rstrip(".").lower()
    return status in _MESSAGES.get(message, ())
