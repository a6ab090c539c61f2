"""Inputs that cannot become a batch: refused in one line that names the cure, without a trace."""

import enum
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from batchord.chains import ChainNotFound, register
from batchord.ledger.errors import SubmitRefused, ValueRejected
from tests.support.harness import Deployment, refused, wait_until

pytestmark = pytest.mark.timeout(60)


class Order(BaseModel):
    """An input type of a chain that is registered in this process."""

    dish: str
    count: int


class Size(enum.Enum):
    SMALL = "small"


@pytest.fixture(scope="module", autouse=True)
def _chains() -> None:
    register("here", _same, replace=True)
    register("orders-here", _same, input_type=Order, replace=True)


def _same(value: Any) -> Any:
    return value


def nested(depth: int) -> Any:
    value: Any = "bottom"
    for _ in range(depth):
        value = [value]
    return value


def loop() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


def test_an_unknown_chain_names_those_that_are_known(traceless: Deployment) -> None:
    message = refused(traceless, "no-such-chain", [1], error=ChainNotFound)
    assert "no-such-chain" in message
    assert "BATCHORD_CHAINS" in message


def test_an_unknown_chain_names_what_the_workers_have(shared: Deployment) -> None:
    before = shared.redis.dbsize()
    message = refused(shared, "no-such-chain", [1], error=ChainNotFound)
    assert "double" in message
    assert shared.redis.dbsize() == before


def test_an_input_that_does_not_fit_the_type_is_refused(traceless: Deployment) -> None:
    fine = {"dish": "soup", "count": 1}
    message = refused(traceless, "orders-here", [fine, {"dish": "secret", "count": "many"}])
    assert message.startswith("input 1: ")
    assert "count" in message
    assert "secret" not in message
    assert "many" not in message


def test_so_is_one_that_does_not_fit_the_type_of_a_chain_that_only_workers_have(
    shared: Deployment,
) -> None:
    before = shared.redis.dbsize()
    fine = {"text": "a"}
    message = refused(shared, "repeat", [fine, fine, {"text": "secret", "times": "many"}])
    assert message.startswith("input 2: ")
    assert "times" in message
    assert "secret" not in message
    assert "many" not in message
    message = refused(shared, "double", [1, "two"])
    assert "two" not in message
    assert "integer" in message
    assert shared.redis.dbsize() == before


def test_models_and_tuples_are_checked_as_the_json_that_they_become(shared: Deployment) -> None:
    class Look(BaseModel):
        text: str
        times: int

    assert shared.client.submit("repeat", [Look(text="ab", times=2)]).outputs() == ["abab"]
    assert refused(shared, "repeat", [Look(text="ab", times=2), ("ab", 2)]).startswith("input 1: ")
    assert shared.client.submit("echo", [(1, (2,)), Size.SMALL]).outputs() == [[1, [2]], "small"]


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: float("nan"), "not_json"),
        (lambda: {"a": [float("inf")]}, "not_json"),
        (object, "not_json"),
        (lambda: b"bytes", "not_json"),
        (lambda: {object()}, "not_json"),
        (lambda: iter([1]), "not_json"),
        (lambda: 1j, "not_json"),
        (lambda: {1: "int key"}, "not_json"),
        (lambda: {None: "null key"}, "not_json"),
        (lambda: "secret \ud800", "not_json"),
        (lambda: {"secret \ud800": 1}, "not_json"),
        (lambda: 10**5000, "not_json"),
        (lambda: -(10**5000), "not_json"),
        (lambda: nested(101), "too_deep"),
        (lambda: nested(5000), "too_deep"),
        (loop, "too_deep"),
        (lambda: "x" * 300_000, "too_large"),
        (lambda: "é" * 140_000, "too_large"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_value_that_cannot_be_recorded_is_refused(
    traceless: Deployment, make: Callable[[], Any], code: str
) -> None:
    with pytest.raises(ValueRejected, match="^input 1: ") as caught:
        traceless.client.submit("here", ["fine", make()])
    assert caught.value.code == code
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 300
    assert "secret" not in message


def test_the_error_for_a_large_input_names_the_setting(traceless: Deployment) -> None:
    message = refused(traceless, "here", ["x" * 300_000])
    assert "262,144" in message
    assert "BATCHORD_MAX_INPUT_BYTES" in message


def test_what_just_fits_comes_back_equal(shared: Deployment) -> None:
    values = [
        nested(100),
        "x" * 262_142,
        10**4000,
        -0.0,
        "\x00 \x1b \u2028 \U0001f600",
        {"": {"": []}},
        None,
        [],
        "",
    ]
    outputs = shared.client.submit("echo", values).outputs()
    assert outputs == values
    assert str(outputs[3]) == "-0.0"


@pytest.mark.parametrize("inputs", [[], (), iter([])], ids=["list", "tuple", "iterator"])
def test_no_inputs_are_refused(traceless: Deployment, inputs: Any) -> None:
    assert "at least one" in refused(traceless, "here", inputs)


@pytest.mark.parametrize("inputs", ["text", b"bytes", {"a": 1}], ids=["str", "bytes", "dict"])
def test_a_single_value_is_not_taken_for_many(traceless: Deployment, inputs: Any) -> None:
    assert "list of inputs" in refused(traceless, "here", inputs)


@pytest.mark.parametrize("inputs", [None, 7, nested], ids=["None", "int", "function"])
def test_inputs_that_cannot_be_iterated_are_refused(traceless: Deployment, inputs: Any) -> None:
    assert "list of inputs" in refused(traceless, "here", inputs)


@pytest.mark.parametrize("count", [2500, 1000], ids=["in a page", "behind the last page"])
def test_a_mistake_far_behind_leaves_no_batch_and_no_key(
    deployment: Deployment, count: int
) -> None:
    def inputs() -> Iterator[Any]:
        yield from range(count)
        wait_until(lambda: deployment.redis.dbsize() > 2, what="a block is in the ledger")
        yield float("nan")

    def submit() -> str:
        return refused(
            deployment,
            "here",
            inputs(),
            custom_ids=(str(i) for i in range(count + 1)),
            idempotency_key="again",
        )

    assert submit().startswith(f"input {count}: ")
    assert deployment.redis.keys() == []
    assert submit().startswith(f"input {count}: "), "the key is free again"
    assert deployment.redis.keys() == []
    assert deployment.client.list() == []


@pytest.mark.parametrize("error", [OSError("disk"), KeyboardInterrupt(), GeneratorExit()])
def test_a_generator_that_raises_leaves_nothing_and_its_error_comes_through(
    traceless: Deployment, error: BaseException
) -> None:
    def inputs() -> Iterator[int]:
        yield from range(1500)
        raise error

    with pytest.raises(type(error)) as caught:
        traceless.client.submit("here", inputs())
    assert caught.value is error


def test_more_inputs_than_allowed_are_refused(deployment: Deployment) -> None:
    small = deployment.settings.model_copy(update={"max_items": 1200})
    from batchord.producer import Client

    with Client(settings=small) as client, pytest.raises(SubmitRefused, match="1,200 inputs.*BATC"):
        client.submit("here", iter(int, 1))  # would never end
    assert deployment.redis.keys() == []
