"""The usage of calls to a provider: tokens, costs, waits."""

import pydantic


def _plus(left: int | None, right: int | None) -> int | None:
    if left is None or right is None:
        return right if left is None else left
    return left + right


class Usage(pydantic.BaseModel, frozen=True):
    """Requests, tokens, cost and waits of one or many calls; None is unknown, not zero."""

    #: Requests that were made, failed ones included.
    requests: int | None = None
    input_tokens: int | None = None
    #: Part of `input_tokens`.
    cached_input_tokens: int | None = None
    output_tokens: int | None = None
    #: Part of `output_tokens`.
    reasoning_tokens: int | None = None
    #: Billionths of a US dollar for what has a known price: whole, so that sums are exact.
    cost_nanos: int | None = None
    #: Requests that were answered and whose price is unknown.
    unpriced_requests: int | None = None
    #: Requests that were answered without a word of the tokens that they used.
    unmetered_requests: int | None = None
    #: How often a request was held back for a rate limit or a cool-down, and for how long in all.
    rate_limit_waits: int | None = None
    rate_limit_wait_ms: int | None = None

    def __add__(self, other: "Usage") -> "Usage":
        """Add field by field; a field that is None on one side is taken from the other."""
        return Usage(
            requests=_plus(self.requests, other.requests),
            input_tokens=_plus(self.input_tokens, other.input_tokens),
            cached_input_tokens=_plus(self.cached_input_tokens, other.cached_input_tokens),
            output_tokens=_plus(self.output_tokens, other.output_tokens),
            reasoning_tokens=_plus(self.reasoning_tokens, other.reasoning_tokens),
            cost_nanos=_plus(self.cost_nanos, other.cost_nanos),
            unpriced_requests=_plus(self.unpriced_requests, other.unpriced_requests),
            unmetered_requests=_plus(self.unmetered_requests, other.unmetered_requests),
            rate_limit_waits=_plus(self.rate_limit_waits, other.rate_limit_waits),
            rate_limit_wait_ms=_plus(self.rate_limit_wait_ms, other.rate_limit_wait_ms),
        )

    @property
    def total_tokens(self) -> int | None:
        """Input and output tokens together; None if neither is known."""
        return _plus(self.input_tokens, self.output_tokens)

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def cost_usd(self) -> float | None:
        """US dollars, as BATCHORD_PRICES has it; None if the price of any request is unknown."""
        if self.cost_nanos is None or self.unpriced_requests:
            return None
        return self.cost_nanos / 1e9

    def counts(self) -> dict[str, int]:
        """Return the fields that are not None, to be summed up."""
        return self.model_dump(exclude_none=True, round_trip=True)
