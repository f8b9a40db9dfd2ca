"""What every peer serves: the MLP 64-128-10, with weights from one seed, so that all must answer the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

LABELS = [str(digit) for digit in range(10)]
TOP = 3


class Digits:
    """The model on one thread, and its answers in everlearn's words: the label and the three largest scores."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(0)
        self._layers = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10)).eval()

    @torch.inference_mode()
    def top(self, instances: torch.Tensor) -> tuple[list[list[float]], list[list[int]]]:
        """Return the largest scores and their classes: [batch, 64] -> twice [batch, 3]."""
        scores, picked = self._layers(instances).softmax(1).topk(TOP)
        return scores.tolist(), picked.tolist()

    def answers(self, instances: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
        """Return an answer for each instance."""
        rows = zip(*self.top(torch.tensor(instances, dtype=torch.float32)), strict=True)
        return [
            {"label": LABELS[picked[0]], "scores": {LABELS[index]: score for index, score in zip(picked, scores, strict=True)}}
            for scores, picked in rows
        ]
