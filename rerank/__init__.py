"""Asks a rerank service: RerankClient, and for scripts the functions `rerank` and `score`. Needs neither Pulumi nor a model."""

from rerank.client import RerankClient
from rerank.errors import (
    Failed,
    InvalidInput,
    MalformedAnswer,
    Overloaded,
    Rejected,
    RerankError,
    TimedOut,
    TooLong,
    Unauthorised,
    Unreachable,
    WrongModel,
)
from rerank.helpers import default_client, rerank, score
from rerank.results import Health, Item, RerankResult, ScoreResult

__all__ = [
    "Failed",
    "Health",
    "InvalidInput",
    "Item",
    "MalformedAnswer",
    "Overloaded",
    "Rejected",
    "RerankClient",
    "RerankError",
    "RerankResult",
    "ScoreResult",
    "TimedOut",
    "TooLong",
    "Unauthorised",
    "Unreachable",
    "WrongModel",
    "default_client",
    "rerank",
    "score",
]
