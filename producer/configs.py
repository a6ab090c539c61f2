"""Configs on their way to the workers: what is alike is recorded once."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from batchord.chains.config import RunnableConfig, portable
from batchord.ledger.core.json_values import encode
from batchord.ledger.errors import SubmitRefused, ValueRejected

#: UTF-8 bytes of one config as JSON.
MAX_CONFIG: Final = 65_536


def recorded(
    config: RunnableConfig | Sequence[RunnableConfig] | None,
) -> tuple[str, list[str | None] | None]:
    """Return the batch's config as JSON text, and each input's, which is None where it is the same.

    The text is empty if there is nothing to tell; the list is None if all have the same config.

    Raises:
        SubmitRefused: a config has callbacks, is not JSON or too large; it names the field.
    """
    if config is None or isinstance(config, dict):
        return _text("config", config or {}), None
    given: Any = config
    if isinstance(given, (str, bytes)) or not isinstance(given, Sequence):
        raise SubmitRefused(f"config: a dict or a list of dicts, not a {type(given).__name__}")
    texts = [_text(f"config[{i}]", each) for i, each in enumerate(config)]
    first = texts[0] if texts else ""
    own = [None if text == first else text or "{}" for text in texts]
    return first, own


def same_length(inputs: Iterable[Any], configs: Sequence[str | None]) -> Iterator[Any]:
    """Yield the inputs.

    Raises:
        SubmitRefused: there are more or fewer inputs than configs.
    """
    count = 0
    for count, value in enumerate(inputs, 1):
        if count > len(configs):
            break
        yield value
    if count != len(configs):
        raise SubmitRefused(
            f"config is a list of {len(configs)}, and there are "
            f"{'more' if count > len(configs) else count} inputs: give one config for each"
        )


def _text(name: str, config: Any) -> str:
    if not isinstance(config, dict):
        raise SubmitRefused(f"{name}: a dict, not a {type(config).__name__}")
    try:
        told = portable(config)
        return encode(told, max_bytes=MAX_CONFIG, setting="none") if told else ""
    except TypeError as error:
        raise SubmitRefused(f"{name}: {error}") from None
    except ValueRejected as error:
        why = f"over {MAX_CONFIG:,} bytes as JSON" if error.code == "too_large" else error
        raise ValueRejected(f"{name}: {why}", code=error.code) from None
