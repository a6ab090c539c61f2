"""One chain as it changes from deployment to deployment."""

import os

from batchord.chains import Chat, RetryPolicy, register

register(
    "answer",
    Chat(
        "test-model",
        temperature=float(os.environ.get("TEST_TEMPERATURE", "0")),
        retry=RetryPolicy(max_attempts=1),
    ),
    version=os.environ.get("TEST_VERSION"),
)
