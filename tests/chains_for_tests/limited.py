"""Chains under rate limits. One attempt each: whatever is not a wait for the limit fails."""

import openai  # noqa: F401  (as a worker starts, and not in the time of the first item)

from batchord.chains import Chat, Embed, RateLimit, RetryPolicy, register

ONCE = RetryPolicy(max_attempts=1)

LIMITS = {
    "requests": RateLimit("test:requests", rpm=600),
    "tokens": RateLimit("test:tokens", tpm=60_000),
    "in-flight": RateLimit("test:in-flight", concurrency=4),
    "cool": RateLimit("test:cool", rpm=3_000),
    "turns": RateLimit("test:turns", rpm=600),
    "slow": RateLimit("test:slow", rpm=150),
}

for _name, _limit in LIMITS.items():
    register(f"limited-{_name}", Chat("test-model", limit=_limit, retry=ONCE))
register("limited-turns-too", Chat("test-model", limit=LIMITS["turns"], retry=ONCE))
register("limited-in-time", Chat("test-model", limit=LIMITS["slow"], retry=ONCE), timeout=2.0)
register("limited-embed", Embed("test-embedding", limit=LIMITS["cool"], retry=ONCE))
