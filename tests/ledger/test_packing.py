"""Texts come back as they were, however they lie in the ledger."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchord.chains import register
from batchord.ledger.core.compression import (
    COMPRESSED_FROM,
    pack,
    pack_outcome,
    unpack,
    unpack_outcome,
)
from batchord.ledger.core.json_values import decode, encode
from tests.support.harness import Deployment

JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def stored(packed: str | bytes) -> str:
    """Return the value as the connection gives it back."""
    raw = packed if isinstance(packed, bytes) else packed.encode()
    return raw.decode(errors="surrogateescape")


@given(value=JSON, times=st.sampled_from([1, 500]))
def test_a_value_comes_back(value: Any, times: int) -> None:
    text = encode([value] * times, max_bytes=10**9, setting="")
    assert unpack(stored(pack(text))) == text
    outcome = unpack_outcome(stored(pack_outcome('{"status":"succeeded"}', text)))
    assert decode(outcome) == {"status": "succeeded", "output": [value] * times}


def test_only_what_is_long_is_compressed() -> None:
    short, long = "x" * (COMPRESSED_FROM - 1), "x" * COMPRESSED_FROM
    assert pack(short) == short
    assert len(pack(long)) < 100


@pytest.mark.parametrize("size", [10, 2_000, 200_000])
def test_long_inputs_and_outputs_come_back_and_take_less(shared: Deployment, size: int) -> None:
    register("echo", str, replace=True)
    value = {"text": "Ein längerer Text mit \\ und \n darin. " * (size // 36), "more": ["\u2028"]}
    batch = shared.client.submit("echo", [value] * 3)
    assert batch.outputs() == [value] * 3
    ids = shared.client._reader.inputs(batch.id, range(3))
    assert ids == [value] * 3
    if size > COMPRESSED_FROM:
        key = f"batchord:{{{batch.id}}}:in:0"
        assert int(shared.redis.memory_usage(key, samples=0) or 0) < size
