"""An update on entries of the log, as the learner makes it, and a forgetting makes it anew."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Mapping

from service.checkpointing import Said, recall_features
from service.learning.update import Item, LearningState, Step

Ready = Callable[[Collection[int], Container[int]], Mapping[int, Item]]
"""Returns items by sequence number; those in the container need no instance."""


def update(
    state: LearningState,
    items: Mapping[int, Item],
    factors: Mapping[int, float],
    *,
    earlier: Ready,
    said: Said,
    alive: Callable[[], object],
) -> tuple[list[Step], dict[int, bytes]]:
    """Make the next version in place, of new items; return its steps, and what a frozen encoder says that was not known.

    `earlier` looks up what is rehearsed, `said` what a frozen encoder says of items; `alive` is called now and then. Raises
    what these or the model raise; the stores are asked before anything is changed.
    """
    steps = state.plan(list(items), items)
    rehearsed = sorted({seq for step in steps for seq in step.rehearsed} - items.keys())
    recall_features(state, said, [*items, *rehearsed])
    state.update(steps, {**earlier(rehearsed, state.features), **items}, factors, alive)
    return steps, state.take_encoded()
