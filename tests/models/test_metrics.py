from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics as reference

from models.metrics import calibration_error, classification_metrics, regression_metrics


def test_classification_metrics_are_those_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    target = generator.choice(4, size=500, p=[0.6, 0.3, 0.09, 0.01])
    predicted = np.where(generator.random(500) < 0.7, target, generator.integers(4, size=500))
    columns = {
        "accuracy": torch.from_numpy(predicted == target),
        "log_loss": torch.ones(500),
        "predicted": torch.from_numpy(predicted),
        "confidence": torch.ones(500),
        "target": torch.from_numpy(target),
    }
    found = classification_metrics(columns)
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(target, predicted))
    assert found["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(target, predicted))
    assert found["macro_f1"] == pytest.approx(reference.f1_score(target, predicted, average="macro"))
    majority = np.bincount(target).max() / 500
    assert found["kappa_m"] == pytest.approx((found["accuracy"] - majority) / (1 - majority))


def test_the_calibration_error_is_0_for_honest_confidence_and_the_gap_for_boasting() -> None:
    confidence = np.full(1000, 0.7)
    right = np.arange(1000) % 10 < 7
    assert calibration_error(confidence, right.astype(float)) == pytest.approx(0, abs=1e-9)
    assert calibration_error(np.full(1000, 0.95), right.astype(float)) == pytest.approx(0.25)


def test_regression_metrics_are_those_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    target = generator.normal(size=200)
    errors = generator.normal(size=200) / 3
    columns = {"mae": torch.from_numpy(abs(errors)), "mse": torch.from_numpy(errors**2), "target": torch.from_numpy(target)}
    found = regression_metrics(columns)
    assert found["mae"] == pytest.approx(reference.mean_absolute_error(target, target + errors))
    assert found["rmse"] == pytest.approx(reference.root_mean_squared_error(target, target + errors))
    assert found["r2"] == pytest.approx(reference.r2_score(target, target + errors))
