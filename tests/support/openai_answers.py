"""Answers of the test server: the same for the same request, so that a test can state them."""

import base64
import hashlib
import json
import re
from functools import lru_cache
from typing import Any

import hypothesis
import numpy as np
import numpy.typing as npt
from hypothesis.strategies import from_regex

JsonObject = dict[str, Any]

#: Nesting at which a recursive schema is cut short with null or an empty list.
MAX_SCHEMA_DEPTH = 12

_FORMATS = {
    "date": "2026-01-01",
    "date-time": "2026-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "duration": "PT1S",
    "email": "someone@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def request_text(body: JsonObject) -> str:
    """All text of the request, one part a line: what a rule's `match` is looked for in."""
    if conversation := messages_of(body):
        return "\n".join(_message_text(message) for message in conversation)
    return "\n".join(str(text) for text in embedding_inputs(body))


def messages_of(body: JsonObject) -> list[JsonObject]:
    """The messages of a chat, or of a request to the Responses API; none for other requests."""
    if "messages" in body:
        return list(body["messages"])
    if not is_response(body):
        return []
    given = body.get("input", [])
    said = [{"role": "user", "content": given}] if isinstance(given, str) else list(given)
    first = body.get("instructions")
    return ([{"role": "system", "content": first}] if first else []) + said


def is_response(body: JsonObject) -> bool:
    """Whether this is a request to the Responses API: its `input` is a text or are messages."""
    given = body.get("input")
    return (
        isinstance(given, list) and bool(given) and all(isinstance(one, dict) for one in given)
    ) or bool({"instructions", "text", "max_output_tokens"} & body.keys())


def last_user_text(body: JsonObject) -> str:
    """The text of the last user message, or of the last message if no user spoke."""
    messages = messages_of(body)
    spoken = [message for message in messages if message.get("role") == "user"] or messages
    return _message_text(spoken[-1])


def embedding_inputs(body: JsonObject) -> list[Any]:
    """The inputs of an embeddings request as a list, also when one bare string was sent."""
    given = body.get("input", [])
    return given if isinstance(given, list) else [given]


def chat_content(body: JsonObject) -> str:
    """`echo: ` and the last user's text, or JSON that fits the schema that the request asks for."""
    text = last_user_text(body)
    text_options: JsonObject = body.get("text") or {}
    wanted: JsonObject = body.get("response_format") or text_options.get("format") or {}
    if wanted.get("type") == "json_schema":
        schema = wanted.get("json_schema", wanted).get("schema") or {}
        return json.dumps(fit(schema, f"echo: {text}"), ensure_ascii=False)
    if wanted.get("type") == "json_object":
        return json.dumps({"echo": text}, ensure_ascii=False)
    return f"echo: {text}"


def count_tokens(text: str) -> int:
    """The number of words: a count that a test can do in its head."""
    return len(text.split())


def chat_usage(body: JsonObject, content: str, cached: int = 0) -> JsonObject:
    """The usage of a chat as the API states it."""
    asked, answered = count_tokens(request_text(body)), count_tokens(content)
    return {
        "prompt_tokens": asked,
        "completion_tokens": answered,
        "total_tokens": asked + answered,
        "prompt_tokens_details": {"cached_tokens": min(cached, asked)},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def response_usage(body: JsonObject, content: str, cached: int = 0) -> JsonObject:
    """The usage of an answer of the Responses API; a token in two was thought, not said."""
    asked, answered = count_tokens(request_text(body)), count_tokens(content)
    return {
        "input_tokens": asked,
        "output_tokens": 2 * answered,
        "total_tokens": asked + 2 * answered,
        "input_tokens_details": {"cached_tokens": min(cached, asked), "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": answered},
    }


def stable_id(body: JsonObject) -> str:
    """The same short id for the same request."""
    return hashlib.blake2b(json.dumps(body, sort_keys=True).encode(), digest_size=8).hexdigest()


def fit(schema: JsonObject, text: str) -> Any:
    """A value that fits the JSON schema: strings are `text`, enums their first value, numbers 0.

    A string with a pattern is the simplest that matches, if `text` does not.
    """
    return _fit(schema, text, schema.get("$defs", {}), 0)


def _fit(schema: JsonObject, text: str, defs: JsonObject, depth: int) -> Any:
    if "$ref" in schema:
        target = defs.get(schema["$ref"].rsplit("/", 1)[-1], {})
        return _fit(target, text, defs, depth + 1)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    options = schema.get("anyOf") or schema.get("oneOf")
    if options:
        return _fit(_first_option(options, depth), text, defs, depth + 1)
    if schema.get("allOf"):
        merged: JsonObject = {}
        for part in schema["allOf"]:
            merged |= part
        return _fit(merged, text, defs, depth + 1)
    return _fit_type(schema, text, defs, depth)


def _first_option(options: list[JsonObject], depth: int) -> JsonObject:
    null = [option for option in options if option.get("type") == "null"]
    if null and depth >= MAX_SCHEMA_DEPTH:
        return null[0]
    return next((option for option in options if option.get("type") != "null"), options[0])


def _fit_type(schema: JsonObject, text: str, defs: JsonObject, depth: int) -> Any:
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = next((name for name in kind if name != "null"), "null")
    match kind:
        case "object":
            fields = schema.get("properties", {})
            return {name: _fit(field, text, defs, depth + 1) for name, field in fields.items()}
        case "array":
            return _fit_array(schema, text, defs, depth)
        case "string":
            return _fit_string(schema, text)
        case "integer" | "number":
            return _fit_number(schema)
        case "boolean":
            return False
    return None


def _fit_array(schema: JsonObject, text: str, defs: JsonObject, depth: int) -> list[Any]:
    fixed = [_fit(part, text, defs, depth + 1) for part in schema.get("prefixItems", [])]
    if fixed or depth >= MAX_SCHEMA_DEPTH:
        return fixed
    wanted = max(schema.get("minItems", 1), 1)
    wanted = min(wanted, schema.get("maxItems", wanted))
    return [_fit(schema.get("items", {}), text, defs, depth + 1) for _ in range(wanted)]


def _fit_string(schema: JsonObject, text: str) -> str:
    if schema.get("format") in _FORMATS:
        return _FORMATS[schema["format"]]
    pattern = schema.get("pattern")
    if pattern is not None:
        return text if re.search(pattern, text) else _simplest(pattern)
    padded = text.ljust(schema.get("minLength", 0), "x")
    return padded[: schema.get("maxLength", len(padded))]


@lru_cache(maxsize=1_000)
def _simplest(pattern: str) -> str:
    # Shrinking would take seconds, and the first example is the simplest already.
    quick = hypothesis.settings(
        database=None, derandomize=True, max_examples=20, phases=[hypothesis.Phase.generate]
    )
    return hypothesis.find(from_regex(pattern), lambda text: True, settings=quick)


def _fit_number(schema: JsonObject) -> int:
    low = max(schema.get("minimum", 0), schema.get("exclusiveMinimum", -1) + 1)
    high = min(schema.get("maximum", low), schema.get("exclusiveMaximum", low + 1) - 1)
    return int(min(low, high))


def vector(text: str, dimensions: int) -> npt.NDArray[np.float32]:
    """A unit vector for the text; texts that share words lie closer together."""
    words = re.findall(r"\w+", text.lower())
    total = 0.05 * _direction(f"text:{text}", dimensions)
    for word in words:
        total = total + _direction(f"word:{word}", dimensions)
    return (total / np.linalg.norm(total)).astype(np.float32)


@lru_cache(maxsize=10_000)
def _direction(name: str, dimensions: int) -> npt.NDArray[np.float64]:
    seed = int.from_bytes(hashlib.blake2b(name.encode(errors="replace"), digest_size=8).digest())
    return np.random.default_rng(seed).standard_normal(dimensions)


def encode_vector(values: npt.NDArray[np.float32], encoding: str) -> str | list[float]:
    """The vector as the API sends it: little-endian float32 in base64, or a list of floats."""
    if encoding == "base64":
        return base64.b64encode(values.astype("<f4").tobytes()).decode()
    return [float(value) for value in values]


def _message_text(message: JsonObject) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(part.get("text", "") for part in content if isinstance(part, dict))
