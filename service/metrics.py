"""Prometheus metrics of one process, all in one place. `service.api.exposition` shows those of all processes, summed up.

Each process counts in files of its own, under its name and not its id: who takes the place of a dead one counts on from there.
"""

import os

from prometheus_client import Counter, Gauge, Histogram, values

from service.tally import Tally

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SHORT = (0.0001, 0.00025, 0.0005, *SECONDS)
LONG = (*SECONDS, 30.0, 60.0, 300.0, 1800.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class _Name:
    """What the files of this process are called by."""

    def __init__(self) -> None:
        self.given = ""

    def __call__(self) -> str:
        return self.given or str(os.getpid())


_name = _Name()
if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
    values.ValueClass = values.MultiProcessValue(_name)  # type: ignore[no-untyped-call]


def count_as(name: str) -> None:
    """Count on where the last process of this name ended. No two processes may have the same at a time."""
    _name.given = name


requests = Counter("everlearn_http_requests", "Answered requests.", ["method", "route", "status"])
request_seconds = Tally("everlearn_http_request_seconds", "Time from request to answer.", ["method", "route"], buckets=SECONDS)

_stage_seconds = Tally(
    "everlearn_predict_stage_seconds", "Time of each request to /predict, by what it goes into.", ["stage"], buckets=SHORT
)
parse_seconds = _stage_seconds.labels("parse")
queue_seconds = _stage_seconds.labels("queue")
compute_seconds = _stage_seconds.labels("compute")
serialise_seconds = _stage_seconds.labels("serialise")
waiting_requests = Gauge(
    "everlearn_predict_waiting_requests", "Requests that wait for the engine.", multiprocess_mode="livesum"
)
batch_instances = Tally("everlearn_batch_instances", "Instances in a batch of the engine.", buckets=SIZES)
batch_seconds = Tally("everlearn_batch_seconds", "Time that the engine takes for a batch.", buckets=SHORT)

swaps = Counter("everlearn_swaps", "Versions that the engines have taken.")
swap_seconds = Histogram("everlearn_swap_seconds", "Time to load a version and have the engine take it.", buckets=SECONDS)
swap_delay_seconds = Histogram(
    "everlearn_swap_delay_seconds", "Time from a version's making until an engine serves it.", buckets=SECONDS
)
served_version = Gauge(
    "everlearn_served_version", "The version that an engine serves.", ["process"], multiprocess_mode="livemax"
)

journal_predictions = Counter("everlearn_journal_predictions", "Predictions that the journal has written.")
journal_dropped = Counter("everlearn_journal_dropped", "Predictions that the journal could not keep.")
store_seconds = Histogram(
    "everlearn_store_seconds",
    "Time of the store: appends until they are durable, transactions, their commits alone, files, their fsyncs alone.",
    ["operation", "part"],
    buckets=SHORT,
)

updates = Counter("everlearn_updates", "Committed updates.")
update_items = Counter("everlearn_update_items", "Feedback items that updates took.")
items_per_update = Histogram("everlearn_items_per_update", "Feedback items that one update took.", buckets=SIZES)
update_seconds = Histogram("everlearn_update_seconds", "Time of an update until its commit.", buckets=LONG)
update_compute_seconds = Histogram("everlearn_update_compute_seconds", "Time that an update computes.", buckets=LONG)
commit_seconds = Histogram("everlearn_commit_seconds", "Time to bring a version to stable storage.", buckets=LONG)
learning_delay_seconds = Histogram(
    "everlearn_learning_delay_seconds", "Time that the oldest feedback of an update waited for its version.", buckets=LONG
)
update_failures = Counter("everlearn_update_failures", "Updates that failed.")
quarantined = Counter("everlearn_quarantined", "Feedback items that were set aside.")
gate_refusals = Counter("everlearn_gate_refusals", "Updates that the gate refused for being worse on the holdout.")
forgotten = Counter("everlearn_forgotten", "Feedback items that were unlearned and erased.")


def store_timed(operation: str, part: str, seconds: float) -> None:
    """Take note of what the store has done; see `service.store.Timed`."""
    store_seconds.labels(operation, part).observe(seconds)


def serving(version: int) -> None:
    """Take note of the version that this process serves; others, like the learner, serve none."""
    served_version.labels(_name()).set(version)
