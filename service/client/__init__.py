"""A client of the service: `Client` and `AsyncClient`. It needs httpx, and nothing else of what the service needs."""

from service.client.asynchronous import AsyncClient
from service.client.batches import Limits
from service.client.errors import (
    Backlog,
    ClientError,
    Forbidden,
    Invalid,
    KeyReused,
    NoClasses,
    NotFound,
    NotInTime,
    Overloaded,
    ProblemError,
    TooLarge,
    Unauthenticated,
    UnknownPrediction,
    Unreachable,
)
from service.client.messages import ClassAdded, Feedback, Model, Prediction, Status, Taken
from service.client.synchronous import Client

__all__ = [
    "AsyncClient",
    "Backlog",
    "ClassAdded",
    "Client",
    "ClientError",
    "Feedback",
    "Forbidden",
    "Invalid",
    "KeyReused",
    "Limits",
    "Model",
    "NoClasses",
    "NotFound",
    "NotInTime",
    "Overloaded",
    "Prediction",
    "ProblemError",
    "Status",
    "Taken",
    "TooLarge",
    "Unauthenticated",
    "UnknownPrediction",
    "Unreachable",
]
