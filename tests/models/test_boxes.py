from __future__ import annotations

import contextlib
import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from models.boxes import as_boxes, mean_average_precision, right_ones

Boxes = list[tuple[list[float], int, float]]
"""Boxes with class and score."""


def random_boxes(rng: np.random.Generator, count: int) -> Boxes:
    corners = rng.integers(0, 12, (count, 2)) * 5.0
    sides = rng.integers(2, 6, (count, 2)) * 5.0
    classes, scores = rng.integers(0, 3, count), rng.permutation(1000)[:count] / 1000
    return [
        ([*corner, *(corner + side)], int(name), float(score))
        for corner, side, name, score in zip(corners, sides, classes, scores, strict=True)
    ]


def coco_map(true: list[Boxes], found: list[Boxes]) -> float:
    """Return mAP at 0.5 by COCO's own code."""

    def as_coco(box: list[float]) -> list[float]:
        return [box[0], box[1], box[2] - box[0], box[3] - box[1]]

    rows = [(image, *each) for image, boxes in enumerate(true, 1) for each in boxes]
    annotations = [
        {"id": number, "image_id": image, "category_id": name, "bbox": as_coco(box), "area": 1.0, "iscrowd": 0}
        for number, (image, box, name, _) in enumerate(rows, 1)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco: Any = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": image} for image in range(1, len(true) + 1)],
            "annotations": annotations,
            "categories": [{"id": name} for name in range(3)],
        }
        coco.createIndex()
        results = [
            {"image_id": image, "category_id": name, "bbox": as_coco(box), "score": score}
            for image, boxes in enumerate(found, 1)
            for box, name, score in boxes
        ]
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[1])


@pytest.mark.parametrize("seed", range(6))
def test_mean_average_precision_is_cocos(seed: int) -> None:
    rng = np.random.default_rng(seed)
    true = [random_boxes(rng, int(rng.integers(0, 5))) for _ in range(30)]
    found = [
        sorted(
            [
                *((box, name, float(score)) for (box, name, _), score in zip(boxes, rng.random(len(boxes)), strict=True)),
                *random_boxes(rng, 2),
            ],
            key=lambda each: -each[2],
        )
        for boxes in true
    ]
    columns = torch.full((3, 30, 10), torch.nan, dtype=torch.float64)
    for row, (boxes, there) in enumerate(zip(found, true, strict=True)):
        names, true_names = [name for _, name, _ in boxes], [name for _, name, _ in there]
        right = right_ones(as_boxes([box for box, _, _ in boxes]), names, as_boxes([box for box, _, _ in there]), true_names)
        for place, ((_, name, score), is_right) in enumerate(zip(boxes, right, strict=True)):
            columns[0, row, place] = score
            columns[1, row, place] = name + 1 if is_right else -name - 1
        columns[2, row, : len(there)] = torch.tensor(true_names) + 1
    assert mean_average_precision(*columns) == pytest.approx(coco_map(true, found), abs=1e-9)


def test_a_true_box_is_found_once() -> None:
    box = [0.0, 0.0, 10.0, 10.0]
    assert right_ones(as_boxes([box, box]), ["a", "a"], as_boxes([box]), ["a"]) == [True, False]
    assert right_ones(as_boxes([box]), ["b"], as_boxes([box]), ["a"]) == [False]
    assert right_ones(as_boxes([]), [], as_boxes([box]), ["a"]) == []
    assert right_ones(as_boxes([box]), ["a"], as_boxes([]), []) == [False]


def test_without_any_true_box_there_is_no_precision() -> None:
    nothing = torch.full((2, 3), torch.nan)
    assert math.isnan(mean_average_precision(nothing, nothing, nothing))
