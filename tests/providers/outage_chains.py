"""Chains for outages: what the workers of these tests know."""

import openai  # noqa: F401  (as a worker starts, and not in the time of the first item)

from batchord.chains import Chat, Embed, RetryPolicy, register
from batchord.chains.steps.raw_request import Request

ONCE = RetryPolicy(max_attempts=1)
QUICK = RetryPolicy(initial=0.05, cap=0.1)

register("ask", Chat("test-model", timeout=1.0, retry=QUICK))
register("ask-once", Chat("test-model", timeout=1.0, retry=ONCE))
register("ask-other", Chat("other-model", retry=ONCE))
register("ask-impatient", Chat("test-model", retry=QUICK), outage_patience=1.0)
register("embed", Embed("test-embedding", retry=QUICK))
register("post", Request(retry=QUICK))
# Of models of their own, so that nothing is known of what they bear.
register("ask-of-few", Chat("bears-few", retry=ONCE))
register("ask-slowly", Chat("bears-few-a-second", retry=ONCE))
register("ask-of-eight", Chat("bears-eight", retry=ONCE))
