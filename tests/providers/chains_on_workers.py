"""Chains that the workers of these tests have."""

from batchord.chains import Chat, RetryPolicy, register

register("answers", Chat("test-model", retry=RetryPolicy(initial=0.0)))
register("answers-patiently", Chat("test-model", timeout=1.0, retry=RetryPolicy(initial=0.0)))
