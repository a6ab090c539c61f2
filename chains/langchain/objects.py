"""LangChain's messages, documents and prompt values as JSON values, and back by an allow-list.

The classes are noted beside the JSON, not in it: a record stays readable, and a user's dict that
looks like one of LangChain's records is never taken for one.
"""

import sys
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from batchord.chains.errors import InvalidInput

if TYPE_CHECKING:
    from langchain_core.load.serializable import Serializable

#: Names of classes by the places of their objects, as JSON pointers (RFC 6901).
Types = dict[str, str]

_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
_DEEPEST: Final = 100


def dump(value: Any) -> tuple[Any, Types]:
    """Return the value with LangChain's objects as dicts of their fields, and where they were.

    Containers that hold none, and all other objects, are returned as they are. Only classes of the
    allow-list count, and no subclasses of them.
    """
    # Such an object exists only where the library is imported.
    if "langchain_core" not in sys.modules:
        return value, {}
    types: Types = {}
    return _dumped(value, (), types), types


def load(value: Any, types: Mapping[str, str]) -> Any:
    """Return the value that `dump` was given.

    Raises:
        InvalidInput: langchain-core is not installed here, or has no such class in the allow-list.
    """
    return _loaded(value, (), types) if types else value


def _dumped(value: Any, path: tuple[str, ...], types: Types) -> Any:
    kind = type(value)
    # What is nested more deeply is refused, with a better message, where values are encoded.
    if kind in _SCALARS or len(path) > _DEEPEST:
        return value
    if kind in (list, tuple):
        return [
            each if type(each) in _SCALARS else _dumped(each, (*path, str(i)), types)
            for i, each in enumerate(value)
        ]
    if kind is dict:
        return {key: _dumped(each, (*path, str(key)), types) for key, each in value.items()}
    if _allowed().get(kind.__name__) is not kind:
        return value
    types[_pointer(path)] = kind.__name__
    return _dumped(dict(value), path, types)


def _loaded(value: Any, path: tuple[str, ...], types: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [_loaded(each, (*path, str(i)), types) for i, each in enumerate(value)]
    if not isinstance(value, dict):
        return value
    fields = {key: _loaded(each, (*path, key), types) for key, each in value.items()}
    name = types.get(_pointer(path))
    return fields if name is None else _made(name, fields)


def _pointer(path: tuple[str, ...]) -> str:
    return "".join(f"/{key.replace('~', '~0').replace('/', '~1')}" for key in path)


def _made(name: str, fields: dict[str, Any]) -> Any:
    try:
        kind = _allowed()[name]
        return _reviver()({"lc": 1, "type": "constructor", "id": kind.lc_id(), "kwargs": fields})
    except (ImportError, KeyError):
        raise InvalidInput(
            f"LangChain's {name} cannot be made here: install the langchain-core that made it"
        ) from None
    except ValueError as error:
        raise InvalidInput(f"no {name} of LangChain's: {type(error).__name__}") from None


@cache
def _allowed() -> dict[str, "type[Serializable]"]:
    """Return the classes that may be read back, by name: plain data that only validates."""
    from langchain_core import documents, messages, prompt_values

    kinds: list[Any] = [
        getattr(messages, f"{role}Message{form}")
        for role in ("AI", "Human", "System", "Tool", "Function", "Chat")
        for form in ("", "Chunk")
    ]
    kinds += [messages.RemoveMessage, documents.Document]
    kinds += [prompt_values.StringPromptValue, prompt_values.ChatPromptValue]
    kinds += [prompt_values.ChatPromptValueConcrete]
    return {kind.__name__: kind for kind in kinds}


@cache
def _reviver() -> Any:
    """Return the reviver with which LangChain's own `load` makes objects."""
    from langchain_core.load.load import Reviver

    return Reviver(allowed_objects=list(_allowed().values()))
