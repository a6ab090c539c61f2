"""How providers say that an account cannot pay: one table, to which another is one line."""

from collections.abc import Mapping
from typing import Any, Final

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
PAYMENT_REQUIRED: Final = 402


def cannot_pay(status: int | None, said: Mapping[str, Any]) -> bool:
    """Tell whether an answer with this status and error says that the account cannot pay.

    `status`: None if it says nothing, as that of an error inside of an answer.
    """
    message = str(said.get("message")).strip().rstrip(".").lower()
    statuses = [
        *(_CODES.get(str(said.get(key)), ()) for key in ("code", "type")),
        _MESSAGES.get(message, ()),
    ]
    if status is None:
        return any(statuses)
    return status == PAYMENT_REQUIRED or any(status in each for each in statuses)
