"""An update on entries of the log, as the learner makes it, and a forgetting makes it anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from service.checkpointing import Said, items_of, recall_features
from service.learning.update import Item, LearningState, Step
from service.store import Entry


def update(
    state: LearningState,
    items: Mapping[int, Item],
    factors: Mapping[int, float],
    *,
    entries: Callable[[Sequence[int]], Mapping[int, Entry]],
    said: Said,
) -> tuple[list[Step], dict[int, bytes]]:
    """Make the next version in place, of new items; return its steps, and what a frozen encoder says that was not known.

    `entries` looks up what is rehearsed, `said` what a frozen encoder says of items. Raises what these or the model raise; the
    stores are asked before anything is changed.
    """
    steps = state.plan(list(items))
    rehearsed = sorted({seq for step in steps for seq in step.rehearsed})
    recall_features(state, said, [*items, *rehearsed])
    known = set(state.features)
    earlier = items_of(state.model.input, entries(rehearsed), encoded=known)
    state.update(steps, {**earlier, **items}, factors)
    return steps, state.features_of(state.features.keys() - known)
