"""Prometheus metrics, all in one place. With several processes they are summed through files (see `service.processes`)."""

from prometheus_client import Counter, Histogram

MILLISECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)

requests = Counter("everlearn_http_requests", "Answered requests.", ["method", "route", "status"])
request_seconds = Histogram(
    "everlearn_http_request_seconds", "Time from request to answer.", ["method", "route"], buckets=MILLISECONDS
)
batch_instances = Histogram("everlearn_batch_instances", "Instances in a batch of the engine.", buckets=SIZES)
batch_seconds = Histogram("everlearn_batch_seconds", "Time that the engine takes for a batch.", buckets=MILLISECONDS)
swaps = Counter("everlearn_swaps", "Versions that the engines have taken.")
journal_dropped = Counter("everlearn_journal_dropped", "Predictions that the journal could not keep.")

updates = Counter("everlearn_updates", "Committed updates.")
update_items = Counter("everlearn_update_items", "Feedback items that updates took.")
update_seconds = Histogram("everlearn_update_seconds", "Time of an update until its commit.", buckets=MILLISECONDS)
update_failures = Counter("everlearn_update_failures", "Updates that failed.")
quarantined = Counter("everlearn_quarantined", "Feedback items that were set aside.")
