"""The specialists of learning on streams, to run beside everlearn on the same rows: River's and Vowpal Wabbit."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from models.base import Label

Features = Mapping[str, float | bool | str]

SEED = 0
NEIGHBOUR_WINDOW = 1000  # the latest instances that are looked among


class PeersMissing(Exception):
    """The library of the peers is not installed; the message says how to get it."""


class Peer(Protocol):
    """What is used of a peer."""

    def predict(self, features: Features) -> Label | None:
        """Return the predicted label, None where it can't tell yet."""

    def learn(self, features: Features, label: Label) -> None:
        """Learn from one item."""


def features_of(prepared: Any) -> Features:
    """Return a prepared vector or record as peers take it: by name, without what is missing."""
    if isinstance(prepared, Mapping):
        return {name: value for name, value in prepared.items() if value is not None}
    return {f"x{index}": value for index, value in enumerate(prepared)}


def river_peers(task: str, _: Sequence[str]) -> dict[str, Peer]:
    """Return River's peers at their defaults (Montiel et al. 2021), on scaled numbers where their method needs it."""
    from river import ensemble, forest, linear_model, multiclass, neighbors, preprocessing, tree

    engine = neighbors.LazySearch(window_size=NEIGHBOUR_WINDOW)
    if task == "regression":
        linear = preprocessing.TargetStandardScaler(linear_model.LinearRegression())
        return {
            "river adaptive random forest": _RiverPeer(_numeric(forest.ARFRegressor(seed=SEED))),
            "river Hoeffding adaptive tree": _RiverPeer(_numeric(tree.HoeffdingAdaptiveTreeRegressor(seed=SEED))),
            "river random patches": _RiverPeer(_numeric(ensemble.SRPRegressor(seed=SEED))),
            "river linear regression": _RiverPeer(_scaled(linear)),
            "river nearest neighbours": _RiverPeer(_scaled(neighbors.KNNRegressor(engine=engine))),
        }
    logistic: Any = linear_model.LogisticRegression()
    bagged = tree.HoeffdingTreeClassifier()
    return {
        "river adaptive random forest": _RiverPeer(forest.ARFClassifier(seed=SEED)),
        "river Hoeffding adaptive tree": _RiverPeer(tree.HoeffdingAdaptiveTreeClassifier(seed=SEED)),
        "river random patches": _RiverPeer(ensemble.SRPClassifier(seed=SEED)),
        "river leveraging bagging": _RiverPeer(ensemble.LeveragingBaggingClassifier(bagged, seed=SEED)),
        "river logistic regression": _RiverPeer(_scaled(multiclass.OneVsRestClassifier(logistic))),
        "river nearest neighbours": _RiverPeer(_scaled(neighbors.KNNClassifier(engine=engine))),
    }


def vowpal_peers(task: str, classes: Sequence[str]) -> dict[str, Peer]:
    """Return Vowpal Wabbit with and without quadratic features (Langford et al. 2007). Raises PeersMissing."""
    try:
        import vowpalwabbit
    except ImportError as exc:
        raise PeersMissing("Vowpal Wabbit is not installed: pip install 'everlearn[peers]'") from exc
    goal = f"--oaa {max(2, len(classes))}" if task == "classification" else ""
    variants = {"vw": "", "vw -q ::": "-q ::"}
    names = list(classes) if task == "classification" else None
    return {
        name: _VowpalPeer(vowpalwabbit.Workspace(f"{goal} {flags} --quiet --random_seed {SEED}"), names)
        for name, flags in variants.items()
    }


PEERS: dict[str, Callable[[str, Sequence[str]], dict[str, Peer]]] = {"river": river_peers, "vw": vowpal_peers}
"""Families of peers by name: (task, classes that will come) -> peers by name."""


def _numeric(model: Any, *transformers: Any) -> Any:
    """Return a pipeline of the model on one-hot strings and on numbers, these as they are or transformed."""
    from river import compose, preprocessing

    numbers = compose.Pipeline(compose.SelectType(int, float, bool), *transformers)
    return (numbers + (compose.SelectType(str) | preprocessing.OneHotEncoder())) | model


def _scaled(model: Any) -> Any:
    """Return a pipeline of the model on one-hot strings and standardised numbers."""
    from river import preprocessing

    return _numeric(model, preprocessing.StandardScaler())


class _RiverPeer:
    def __init__(self, model: Any) -> None:
        self._model = model

    def predict(self, features: Features) -> Label | None:
        answer: Label | None = self._model.predict_one(dict(features))
        return answer

    def learn(self, features: Features, label: Label) -> None:
        self._model.learn_one(dict(features), label)


class _VowpalPeer:
    def __init__(self, workspace: Any, classes: Sequence[str] | None) -> None:
        self._workspace = workspace
        self._classes = classes
        self._numbers = {name: number for number, name in enumerate(classes or (), start=1)}

    def predict(self, features: Features) -> Label | None:
        answer = self._workspace.predict(self._line("", features))
        if self._classes is None:
            return float(answer)
        return self._classes[int(answer) - 1] if 0 < answer <= len(self._classes) else None

    def learn(self, features: Features, label: Label) -> None:
        self._workspace.learn(self._line(str(self._numbers.get(str(label), label)), features))

    def _line(self, label: str, features: Features) -> str:
        """Return an example in Vowpal Wabbit's text format, in which spaces, colons and bars are not part of a name."""
        cells = (
            f"{_word(name)}={_word(value)}" if isinstance(value, str) else f"{_word(name)}:{float(value)!r}"
            for name, value in features.items()
        )
        return f"{label} |f {' '.join(cells)}"


def _word(text: str) -> str:
    return re.sub(r"[\s:|]", "_", text)
