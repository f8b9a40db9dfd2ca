"""The field: which servers, of which release, with which of their documented settings, and what each does for a request."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.servers import question

TORCH = "torch==2.14.1"  # the constraint of everlearn's own environment
HTTP = "uvicorn[standard]==0.54.0"  # with uvloop and httptools, which not all of them require


@dataclass(frozen=True)
class Peer:
    """A server: its release, the settings it is tried with, how it is asked and answers, and what it does for a request.

    Settings are environments of the module of the same name in this folder.
    """

    name: str
    module: str
    release: str
    settings: Mapping[str, Mapping[str, str]]
    body: bytes
    scores: Callable[[Any], Mapping[str, float]]
    does: str
    path: str = "/predict"

    @property
    def requirements(self) -> tuple[str, ...]:
        """What its virtual environment is made of."""
        return (self.release, TORCH, HTTP, "orjson==3.13.0")


INSTANCES: list[list[float]] = json.loads(question())["instances"]


def _tensors() -> bytes:
    data = [number for instance in INSTANCES for number in instance]
    return json.dumps({"inputs": [{"name": "instances", "shape": [1, 64], "datatype": "FP32", "data": data}]}).encode()


def _of_tensors(answer: Any) -> Mapping[str, float]:
    labels, scores = (output["data"] for output in answer["outputs"])
    return dict(zip(labels, scores, strict=True))


def _litserve(size: int, queue: str) -> Mapping[str, str]:
    return {"MAX_BATCH_SIZE": str(size), "BATCH_TIMEOUT": "0.002", "FAST_QUEUE": queue}


def _bentoml(service: str) -> Mapping[str, str]:
    return {"SERVICE": service, "BENTOML_DO_NOT_TRACK": "True"}


def _ray(size: int, proxy: str) -> Mapping[str, str]:
    return {
        "MAX_BATCH_SIZE": str(size),
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_ENABLE_HA_PROXY": proxy,
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def _mlserver(**settings: str) -> Mapping[str, str]:
    return {"MLSERVER_PARALLEL_WORKERS": "0", **settings}


LITSERVE = Peer(
    name="LitServe",
    module="litserve",
    release="litserve==0.2.19",
    settings={
        "fast_queue as released": _litserve(1, "released"),
        "fast_queue repaired": _litserve(1, "repaired"),
        "fast_queue as released, max_batch_size 32 in 2 ms": _litserve(32, "released"),
        "fast_queue repaired, max_batch_size 32 in 2 ms": _litserve(32, "repaired"),
    },
    body=question(),
    scores=lambda answer: answer["predictions"][0]["scores"],
    does="an id inside, not in the answer; JSON parsed, instances not validated; no metrics; no journal",
)
BENTOML = Peer(
    name="BentoML",
    module="bentoml",
    release="bentoml==1.4.40",
    settings={
        "async method": _bentoml("Inline"),
        "sync method in its thread": _bentoml("Threaded"),
        "adaptive batches up to 32": _bentoml("Batched"),
    },
    body=json.dumps({"instances": INSTANCES}).encode(),
    scores=lambda answer: answer[0]["scores"],
    does="a request id in the answer; pydantic checks for lists of numbers, not their length; metrics; no journal",
)
RAY = Peer(
    name="Ray Serve",
    module="ray",
    release="ray[serve]==2.60.0",
    settings={
        "throughput-optimized, HAProxy": _ray(1, "1"),
        "throughput-optimized, replica's own port": _ray(1, "0"),
        "throughput-optimized, replica's own port, serve.batch of 32 without waiting": _ray(32, "0"),
    },
    body=question(),
    scores=lambda answer: answer["predictions"][0]["scores"],
    does="a request id in the answer; nothing parsed or validated but by the model's code; metrics; no journal",
)
MLSERVER = Peer(
    name="MLServer",
    module="mlserver",
    release="mlserver==1.7.1",
    settings={
        "parallel_workers 0": _mlserver(),
        "parallel_workers 0, adaptive batches up to 32 in 5 ms": _mlserver(
            MLSERVER_MODEL_MAX_BATCH_SIZE="32", MLSERVER_MODEL_MAX_BATCH_TIME="0.005"
        ),
    },
    path="/v2/models/digits/infer",
    body=_tensors(),
    scores=_of_tensors,
    does="an id in the answer; pydantic checks the Open Inference Protocol, not the instance; metrics; no journal",
)
PEERS = (LITSERVE, BENTOML, RAY, MLSERVER)
EVERLEARN = (
    "prediction id, request id and model version in the answer; every number and the length validated; metrics; "
    "the input journalled for feedback by id; the learner on"
)
