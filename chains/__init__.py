"""Pure pipelines: steps, composition, registry, error policy. Connects to nothing on import."""

from chains.chat import Chat
from chains.coerce import coerce
from chains.config import RunnableConfig
from chains.embed import Embed
from chains.errors import (
    BatchordError,
    ChainError,
    ChainNotFound,
    ErrorInfo,
    InvalidInput,
    OperatorNeeded,
    RetryLater,
    explain,
)
from chains.function import Lambda
from chains.limits import RateLimit
from chains.listeners import ListenedRun
from chains.parallel import Parallel
from chains.prompt import Prompt
from chains.registry import RegisteredChain, Registry, get_chain, register, registered
from chains.request import Request
from chains.responses import Responses
from chains.retriever import Document, Retriever
from chains.retry import RetryPolicy
from chains.run import report_usage
from chains.runnable import Runnable
from chains.sequence import Sequence
from chains.usage import Usage

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
