"""Recommendation in the pure loop: a shop with new products every day and tastes that change half-way, beside popularity and
River's matrix factorisation on the same stream; new products before anybody chose them; what labels of explored answers tell
of the ranking that does not explore; and a catalogue of 100,000 in the engine."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from river import optim, reco

from models.registry import build_model
from service.demo.products import gain
from service.demo.shop import KINDS, TASTE, Choice, Product, Shop
from service.learning.update import Declaration, Item, LearningState
from service.serving.engine import Answers, Engine, Question
from service.settings import LearningSettings
from service.templates import TEMPLATES

DAYS, TOP, LARGE = 40, 10, 100_000
LATELY = 0.998  # of a choice's count is left after the next one, in what is popular lately
NEGATIVES = 3  # products that River's models are told were not chosen, for each choice


class Recommender(Protocol):
    """Ranks products for a user, and takes in what was chosen."""

    def best(self, user: str) -> list[str]:
        """Return the ten best products."""

    def arrive(self, products: Sequence[Product]) -> None:
        """Take new products in."""

    def chosen(self, choices: Sequence[Choice]) -> None:
        """Take choices in."""


class Everlearn:
    """The template `products`, by default without exploration; with products that are described, or not."""

    def __init__(self, *, described: bool = True, **options: Any) -> None:
        template = TEMPLATES["products"]
        model = {part: template[part] for part in ("input", "encoder", "head")}
        self.state = LearningState(
            build_model({**model, "head": {**model["head"], "explore": 0.0, **options}}),
            LearningSettings(**template["learning"]),
        )
        self._described = described
        self._items: dict[int, Item] = {}

    def tops(self, users: Sequence[str]) -> list[list[str]]:
        """Return the ten best products for each user."""
        model = self.state.model
        with torch.inference_mode():
            answers = model.head.answers(model(model.collate([model.input.prepare({"user": user}) for user in users])), TOP)
        return [answer["items"] for answer in answers]

    def best(self, user: str) -> list[str]:
        return self.tops([user])[0] if self.state.model.head.ready else []

    def arrive(self, products: Sequence[Product]) -> None:
        self.state.declare([Declaration(each.name, (each.description,) if self._described else ()) for each in products])

    def chosen(self, choices: Sequence[Choice], answers: Sequence[Any] | None = None) -> None:
        """Take choices in, of answers where they were served."""
        seqs = range(len(self._items) + 1, len(self._items) + len(choices) + 1)
        model = self.state.model
        for seq, each, answer in zip(seqs, choices, answers or [None] * len(choices), strict=True):
            kept = None if answer is None else model.head.kept(answer)
            self._items[seq] = Item(model.input.prepare({"user": each.user}), each.item, answer=kept)
        self.state.update(self.state.plan(seqs, self._items), self._items)


class Popular:
    """What was chosen most often so far, or lately."""

    def __init__(self, fading: float = 1.0) -> None:
        self._counts: Counter[str] = Counter()
        self._fading = fading

    def best(self, user: str) -> list[str]:
        return [name for name, _ in self._counts.most_common(TOP)]

    def arrive(self, products: Sequence[Product]) -> None:
        pass

    def chosen(self, choices: Sequence[Choice]) -> None:
        for each in choices:
            if self._fading < 1:
                self._counts = Counter({item: self._fading * count for item, count in self._counts.items()})
            self._counts[each.item] += 1


class River:
    """A model of river.reco that learns 1 for what was chosen and 0 for some products at random."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._known: list[str] = []
        self._rng = np.random.default_rng(1)

    def best(self, user: str) -> list[str]:
        return sorted(self._known, key=lambda item: -self._model.predict_one(user, item))[:TOP]

    def arrive(self, products: Sequence[Product]) -> None:
        self._known += [each.name for each in products]

    def chosen(self, choices: Sequence[Choice]) -> None:
        for each in choices:
            self._model.learn_one(each.user, each.item, 1.0)
            for index in self._rng.choice(len(self._known), NEGATIVES):
                self._model.learn_one(each.user, self._known[index], 0.0)


class Oracle:
    """What is truly likeliest: no learner can be better."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop

    def best(self, user: str) -> list[str]:
        liked = self._shop.liked(int(user[1:]))
        ranked = sorted(self._shop.products, key=lambda each: -(TASTE * (each.kind in liked) + each.quality))
        return [each.name for each in ranked[:TOP]]

    def arrive(self, products: Sequence[Product]) -> None:
        pass

    def chosen(self, choices: Sequence[Choice]) -> None:
        pass


def recommenders(shop: Shop) -> Iterator[tuple[str, Recommender]]:
    """Yield all that are compared."""
    yield "everlearn", Everlearn()
    yield "everlearn, nothing described", Everlearn(described=False)
    yield "most popular", Popular()
    yield "most popular lately", Popular(LATELY)
    for rate in (0.02, 0.05):
        sgd = {"bias_optimizer": optim.SGD(rate), "latent_optimizer": optim.SGD(rate)}
        yield f"river BiasedMF, {rate}", River(reco.BiasedMF(n_factors=16, l2_bias=0.01, l2_latent=0.01, seed=1, **sgd))
        yield f"river FunkMF, {rate}", River(reco.FunkMF(n_factors=16, optimizer=optim.SGD(rate), l2=0.01, seed=1))
    yield "the truth", Oracle(shop)


def compare() -> Everlearn:
    """Print NDCG@10 of all on the same stream; return everlearn's learner at its end."""
    shop = Shop(np.random.default_rng(0))
    compared = dict(recommenders(shop))
    gains: dict[str, list[float]] = {name: [] for name in compared}
    for events in shop.days(DAYS):
        products = [event for event in events if isinstance(event, Product)]
        choices = [event for event in events if isinstance(event, Choice)]
        for name, recommender in compared.items():
            recommender.arrive(products)
            for start in range(0, len(choices), 4):
                some = choices[start : start + 4]
                gains[name] += [gain({"items": recommender.best(each.user)}, each.item) for each in some]
                recommender.chosen(some)
    print(
        f"| NDCG@10 over {DAYS} days of 100 choices | first half | second half, after tastes changed | all |\n|---|---|---|---|"
    )
    for name, values in gains.items():
        half = len(values) // 2
        print(f"| {name} | {np.mean(values[:half]):.3f} | {np.mean(values[half:]):.3f} | {np.mean(values):.3f} |", flush=True)
    everlearn = compared["everlearn"]
    assert isinstance(everlearn, Everlearn)
    _new_products(everlearn, shop)
    return everlearn


def _new_products(everlearn: Everlearn, shop: Shop) -> None:
    """Print who is recommended one more product of each kind, that nobody has chosen."""
    shares = []
    users = range(len(shop.tastes))
    for kind in KINDS:
        product = Product(f"new {kind}", kind, f"a new {kind}", 0.0)
        everlearn.arrive([product])
        shown = np.array([product.name in top for top in everlearn.tops([f"u{user}" for user in users])])
        likes = np.array([kind in shop.liked(user) for user in users])
        shares.append((shown[likes].mean(), shown[~likes].mean()))
    fans, others = np.mean(shares, axis=0)
    print(f"\na product described just now is in the top 10 of {fans:.0%} of those who like its kind, {others:.1%} of others")


def off_policy() -> None:
    """Print what answers that explored say the best items would have earned, beside what these did in truth."""
    shop = Shop(np.random.default_rng(0))
    everlearn = Everlearn(explore=0.2)
    model = everlearn.state.model
    firsts = []
    for events in shop.days(DAYS // 2):
        everlearn.arrive([event for event in events if isinstance(event, Product)])
        choices = [event for event in events if isinstance(event, Choice)]
        for start in range(0, len(choices), 4):
            some = choices[start : start + 4]
            batch = model.collate([model.input.prepare({"user": each.user}) for each in some])
            with torch.inference_mode():
                outputs = model(batch)
                answers, best = model.head.answers(outputs, TOP), model.head.settled(outputs)
            said = [(answer["items"][0], own["items"][0]) for answer, own in zip(answers, best, strict=True)]
            firsts += [(own == each.item, shown == each.item) for (shown, own), each in zip(said, some, strict=True)]
            everlearn.chosen(some, answers)
    window = everlearn.state.metrics()["window"]
    truth, earned = np.mean(firsts[-window["items"] :], axis=0)
    print(
        f"\nexploring 20 %: the first item was chosen {earned:.3f} of the times; the best one would have been"
        f" {window['ips_reward']:.3f} by inverse propensities, {truth:.3f} in truth"
    )


def large(size: int) -> Everlearn:
    """Return a learner with a catalogue of described products, a few of which were chosen."""
    everlearn = Everlearn()
    head = everlearn.state.model.head
    names = [f"p{n}" for n in range(size)]
    with torch.no_grad():
        head.admit(names)
        for n, name in enumerate(names):
            head.declare(name, [f"a thing of the kind {n % 1000}"], torch.tensor)
    everlearn.chosen([Choice(f"u{n}", f"p{n}") for n in range(64)])
    return everlearn


def latency() -> None:
    """Print how long the engine takes for the ten best of a large catalogue."""
    torch.set_num_threads(1)
    model = large(LARGE).state.model
    engine = Engine(model)
    times = []
    for user in range(2000):
        began = time.perf_counter()
        (answers,) = engine.predict([Question([model.input.prepare({"user": f"u{user}"})], TOP)]).result()
        times.append(1000 * (time.perf_counter() - began))
        assert isinstance(answers, Answers)
        assert len(answers.answers[0]["items"]) == TOP
    engine.close()
    p50, p99 = np.percentile(times[1:], [50, 99])
    first = f"{times[0]:.0f} ms for the first of a version"
    print(f"\ntop 10 of {LARGE:,} in the engine, one thread: {p50:.2f} ms (p50), {p99:.2f} ms (p99), {first}")


def growth() -> None:
    """Print what a version costs where the catalogue is small, and where it is large."""
    torch.set_num_threads(1)
    print("\n| items | an update | with a new user and item | a described item | checkpoint |\n|---|---|---|---|---|")
    for size in (1000, 10_000, LARGE - 1000):
        everlearn = large(size)
        known, new, described = (
            [_timed(partial(take, n)) for n in range(12)]
            for take in (
                lambda n, own=everlearn: own.chosen([Choice(f"u{n}", f"p{n}")]),
                lambda n, own=everlearn: own.chosen([Choice(f"v{n}", f"q{n}")]),
                lambda n, own=everlearn: own.arrive([Product(f"r{n}", "", "a new thing", 0.0)]),
            )
        )
        state = everlearn.state
        megabytes = (len(state.model_bytes()) + len(state.learner_bytes())) / 1e6
        medians = " | ".join(f"{np.median(each):.0f} ms" for each in (known, new, described))
        print(f"| {size:,} | {medians} | {megabytes:.0f} MB |", flush=True)


def _timed(take: Callable[[], None]) -> float:
    """Return the milliseconds that something takes."""
    began = time.perf_counter()
    take()
    return 1000 * (time.perf_counter() - began)


if __name__ == "__main__":
    compare()
    off_policy()
    latency()
    growth()
