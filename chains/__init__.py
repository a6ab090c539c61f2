"""Pure pipelines: steps, composition, registry, error policy. Connects to nothing on import."""

from batchord.chains.composition.as_runnable import coerce
from batchord.chains.composition.function import Lambda
from batchord.chains.composition.listeners import ListenedRun
from batchord.chains.composition.parallel import Parallel
from batchord.chains.composition.runnable import Runnable
from batchord.chains.composition.sequence import Sequence
from batchord.chains.config import RunnableConfig
from batchord.chains.errors import (
    BatchordError,
    ChainError,
    ChainNotFound,
    InvalidInput,
    OperatorNeeded,
    RetryLater,
)
from batchord.chains.explain import ErrorInfo, explain
from batchord.chains.ratelimit.limits import RateLimit
from batchord.chains.registry import RegisteredChain, Registry, get_chain, register, registered
from batchord.chains.runtime.item_context import report_usage
from batchord.chains.runtime.retry import RetryPolicy
from batchord.chains.specs.chain_spec import ChainSpec
from batchord.chains.steps.chat import Chat
from batchord.chains.steps.embed import Embed
from batchord.chains.steps.prompt import Prompt
from batchord.chains.steps.raw_request import Request
from batchord.chains.steps.responses import Responses
from batchord.chains.steps.retriever import Document, Retriever
from batchord.chains.usage import Usage

__all__ = [
    "BatchordError",
    "ChainError",
    "ChainNotFound",
    "ChainSpec",
    "Chat",
    "Document",
    "Embed",
    "ErrorInfo",
    "InvalidInput",
    "Lambda",
    "ListenedRun",
    "OperatorNeeded",
    "Parallel",
    "Prompt",
    "RateLimit",
    "RegisteredChain",
    "Registry",
    "Request",
    "Responses",
    "Retriever",
    "RetryLater",
    "RetryPolicy",
    "Runnable",
    "RunnableConfig",
    "Sequence",
    "Usage",
    "coerce",
    "explain",
    "get_chain",
    "register",
    "registered",
    "report_usage",
]
