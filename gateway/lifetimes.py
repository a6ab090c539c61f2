"""How long files live: OpenAI's `expires_after` and `output_expires_after`."""

from typing import Any, Final

from batchord.gateway.errors import invalid

#: OpenAI's bounds, in seconds: an hour and 30 days.
_SHORTEST: Final = 3600
_LONGEST: Final = 30 * 24 * 3600


def ttl_of(given: Any, name: str) -> int | None:
    """Return the seconds of `{"anchor": "created_at", "seconds": N}`; None if it was not given.

    Raises:
        ApiError: 400, it is not of this form, or `seconds` is out of bounds.
    """
    if given is None:
        return None
    if not isinstance(given, dict) or given.get("anchor") != "created_at":
        raise invalid(f"{name}[anchor] must be 'created_at'", f"{name}[anchor]", "invalid_value")
    seconds = given.get("seconds")
    if type(seconds) is not int or not _SHORTEST <= seconds <= _LONGEST:
        raise invalid(
            f"{name}[seconds] must be a whole number from {_SHORTEST} to {_LONGEST}",
            f"{name}[seconds]",
            "invalid_value",
        )
    return seconds
