"""Pure pipelines: steps, composition, registry, error policy. Connects to nothing on import."""

from batchord.chains.chat import Chat
from batchord.chains.coerce import coerce
from batchord.chains.config import RunnableConfig
from batchord.chains.embed import Embed
from batchord.chains.errors import (
    BatchordError,
    ChainError,
    ChainNotFound,
    ErrorInfo,
    InvalidInput,
    OperatorNeeded,
    RetryLater,
    explain,
)
from batchord.chains.function import Lambda
from batchord.chains.limits import RateLimit
from batchord.chains.listeners import ListenedRun
from batchord.chains.parallel import Parallel
from batchord.chains.prompt import Prompt
from batchord.chains.registry import RegisteredChain, Registry, get_chain, register, registered
from batchord.chains.request import Request
from batchord.chains.responses import Responses
from batchord.chains.retriever import Document, Retriever
from batchord.chains.retry import RetryPolicy
from batchord.chains.run import report_usage
from batchord.chains.runnable import Runnable
from batchord.chains.sequence import Sequence
from batchord.chains.usage import Usage

__all__ = [
    "BatchordError",
    "ChainError",
    "ChainNotFound",
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
