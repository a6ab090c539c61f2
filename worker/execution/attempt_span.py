"""An attempt as a span of OpenTelemetry."""

from batchord.chains.runtime.item_context import ItemContext
from batchord.chains.runtime.tracing import item_span
from batchord.ledger.storage.item_transitions import Claim
from batchord.worker.execution.attempt import StopsAs, Tools, attempt
from batchord.worker.execution.attempt_result import AttemptResult


async def traced_attempt(
    claim: Claim, tools: Tools, stops_as: StopsAs, run: ItemContext
) -> AttemptResult:
    """Run one attempt as `attempt` does, in a span of its own."""
    request = claim.claim_request
    if request is None:
        return await attempt(claim, tools, stops_as, run)
    with item_span(claim.chain, request.batch_id, request.index, claim.attempt) as span:
        ended = await attempt(claim, tools, stops_as, run)
        status = "deferred" if ended.aside else ended.status.value
        span.end_as(status, ended.code, ended.usage)
        return ended
