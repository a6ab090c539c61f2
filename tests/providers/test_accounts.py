"""An account that cannot pay, in the words of each provider."""

import pytest

from batchord.chains.errors import OperatorNeeded
from batchord.chains.openai.errors import of_status


@pytest.mark.parametrize(
    ("status", "said", "operator"),
    [
        (429, {"code": "insufficient_quota"}, True),
        (429, {"type": "insufficient_quota"}, True),
        (429, {"code": "billing_not_active"}, True),
        (400, {"code": "billing_hard_limit_reached"}, True),
        (402, {}, True),
        (400, {"message": "Insufficient Balance"}, True),
        (429, {"code": "rate_limit_exceeded"}, False),
        (400, {"message": "the story has the words Insufficient Balance in it"}, False),
        (500, {"code": "insufficient_quota"}, False),
    ],
)
def test_whether_the_account_cannot_pay(status: int, said: dict[str, str], operator: bool) -> None:
    error = of_status(status, said, otherwise="silent")
    assert isinstance(error, OperatorNeeded) is operator
    assert (error.code == "insufficient_quota") is operator
    assert said.get("message", "silent") in str(error)
