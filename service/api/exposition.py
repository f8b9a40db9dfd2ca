"""What Prometheus is shown: the metrics of all processes, what the store knows, and the same under names that others gave."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import Literal

import torch
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from service import tally
from service.api.service import Service
from service.learning.sources import Sources
from service.position import Position

Names = Literal["everlearn", "triton", "kserve"]

PREDICT = ("/predict", "/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer")
"""The routes that predict."""


def exposition(service: Service, names: Names) -> bytes:
    """Return the metrics as text."""
    tally.count()
    counted = CollectorRegistry()
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        MultiProcessCollector(counted)  # type: ignore[no-untyped-call]
    else:
        counted.register(REGISTRY)
    if names == "everlearn":
        counted.register(_Progress(service))
        return generate_latest(counted)
    renamed = _triton if names == "triton" else _kserve
    return generate_latest(_Renamed(renamed(counted.collect(), service.settings.serving.name)))


class _Progress(Collector):
    """What is read from the store when it is asked for: how far learning is."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        """Yield what the newest version's row and the log's end say; nothing of learning before version 0."""
        built = GaugeMetricFamily("everlearn_build_info", "What runs here.", labels=["version", "python", "torch"])
        built.add_metric([version("everlearn"), platform.python_version(), torch.__version__], 1)
        yield built
        free = shutil.disk_usage(self._service.settings.store.data).free
        yield GaugeMetricFamily("everlearn_store_free_bytes", "Room that is left where the data directory is.", free)
        led = self._service.checkpoints.led()
        yield GaugeMetricFamily("everlearn_learner_running", "Whether there is a learner that learns.", led)
        newest = self._service.checkpoints.latest()
        if newest is None:
            return
        position = Position.of(newest)
        log_seq = max(self._service.feedback.end(), position.applied_seq)
        yield GaugeMetricFamily("everlearn_model_version", "The newest committed version.", newest.version)
        yield GaugeMetricFamily("everlearn_log_seq", "Last sequence number of the feedback log.", log_seq)
        yield GaugeMetricFamily("everlearn_applied_seq", "Last sequence number that a version contains.", position.applied_seq)
        yield GaugeMetricFamily("everlearn_lag", "Feedback that waits for the learner.", position.lag(log_seq))
        for name, value in newest.metrics["window"].items():
            if value is not None:
                yield GaugeMetricFamily(f"everlearn_window_{name}", f"Prequential {name} over the sliding window.", value)
        yield CounterMetricFamily("everlearn_drifts", "Drifts that were found in the log.", newest.metrics["drift"]["events"])
        weights = GaugeMetricFamily("everlearn_expert_weight", "Weight of an expert in the mix.", labels=["expert"])
        for name, weight in newest.metrics.get("experts", {}).items():
            weights.add_metric([name], weight)
        yield weights
        yield from self._sources()

    def _sources(self) -> Iterator[Metric]:
        """Yield what the gate knows of the sources of feedback: whoever has a key is one, so they are few."""
        sources = json.loads(self._service.checkpoints.gate() or b"{}").get("sources", {})
        described = Sources(self._service.settings.gate.source_share, sources).describe()
        for name, about in (
            ("share", "Part of the recent feedback that a source brings."),
            ("loss", "Loss on what a source labels, before it is learned from."),
            ("doubted", "Whether a source is wrong far more often than the others are."),
        ):
            family = GaugeMetricFamily(f"everlearn_source_{name}", about, labels=["source"])
            for source, values in described.items():
                family.add_metric([source], values[name])
            yield family


class _Renamed(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def _triton(families: Iterable[Metric], model: str) -> Iterator[Metric]:
    """Yield NVIDIA Triton's metrics. They are counters without `_total`, in microseconds: untyped to Prometheus."""
    sums = _Sums(families)
    stages = {stage: sums.of("everlearn_predict_stage_seconds_sum", stage=stage) for stage in STAGES}
    succeeded = sums.of("everlearn_predict_stage_seconds_count", stage="serialise")
    answered = sum(sums.of("everlearn_http_request_seconds_count", route=route) for route in PREDICT)
    taken = sum(sums.of("everlearn_http_request_seconds_sum", route=route) for route in PREDICT)
    for name, about, value in (
        ("nv_inference_request_success", "Predict requests that succeeded.", succeeded),
        ("nv_inference_request_failure", "Predict requests that failed.", max(0, answered - succeeded)),
        ("nv_inference_count", "Instances that were predicted.", sums.of("everlearn_batch_instances_sum")),
        ("nv_inference_exec_count", "Batches that were predicted.", sums.of("everlearn_batch_instances_count")),
        ("nv_inference_pending_request_count", "Requests that wait.", sums.of("everlearn_predict_waiting_requests")),
        ("nv_inference_request_duration_us", "Time of predict requests.", 1e6 * taken),
        ("nv_inference_queue_duration_us", "Time that requests waited for the engine.", 1e6 * stages["queue"]),
        ("nv_inference_compute_input_duration_us", "Time to parse requests.", 1e6 * stages["parse"]),
        ("nv_inference_compute_infer_duration_us", "Time in the model.", 1e6 * stages["compute"]),
        ("nv_inference_compute_output_duration_us", "Time to write answers.", 1e6 * stages["serialise"]),
    ):
        family = Metric(name, about, "unknown")
        family.add_sample(name, {"model": model}, value)
        yield family


def _kserve(families: Iterable[Metric], model: str) -> Iterator[Metric]:
    """Yield the metrics of KServe's model servers: the stages as histograms."""
    stages = next(family for family in families if family.name == "everlearn_predict_stage_seconds")
    for stage, (name, about) in STAGES.items():
        if name:
            family = HistogramMetricFamily(name, about)
            for sample in stages.samples:
                if sample.labels["stage"] == stage:
                    labels = {label: value for label, value in sample.labels.items() if label != "stage"}
                    suffix = sample.name.removeprefix(stages.name)
                    family.add_sample(name + suffix, {"model_name": model, **labels}, sample.value)
            yield family


STAGES: Mapping[str, tuple[str, str]] = {
    "parse": ("request_preprocess_seconds", "Time to parse a request."),
    "queue": ("", ""),
    "compute": ("request_predict_seconds", "Time in the model."),
    "serialise": ("request_postprocess_seconds", "Time to write an answer."),
}
"""The stages of a prediction, and what KServe calls them."""


class _Sums:
    """Samples by name and labels."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._samples = [sample for family in families for sample in family.samples]

    def of(self, name: str, **labels: str) -> float:
        """Return the sum of the samples of a name that have these labels."""
        return sum(sample.value for sample in self._samples if sample.name == name and labels.items() <= sample.labels.items())
