"""Chains for outages: what the workers of these tests know."""

from typing import Any

import openai  # noqa: F401  (as a worker starts, and not in the time of the first item)
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_openai import ChatOpenAI

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


def of_langchain(model: str) -> ChatOpenAI:
    return ChatOpenAI(model_name=model, max_retries=0, request_timeout=1.0)


async def calls_a_model(text: str) -> Any:
    """A function that hides which model it calls."""
    return (await of_langchain("hidden-model").ainvoke(text)).content


prompt = ChatPromptTemplate.from_messages([("human", "{input}")])
register("langchain", prompt | of_langchain("langchain-model") | StrOutputParser())
register("langchain-function", RunnableLambda(calls_a_model))
register("langchain-of-few", of_langchain("langchain-bears-few") | StrOutputParser())
