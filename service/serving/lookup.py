"""The parameters and parts of a module, where Python finds them at once."""

from __future__ import annotations

from torch import nn


def put_at_hand(model: nn.Module) -> None:
    """Let each module find its parameters and parts among its plain attributes; to be repeated once it has others.

    torch keeps them in dictionaries of its own, into which it looks after Python has looked everywhere else: a sixth of the
    time that a small model takes to answer. A module that is given another parameter or part as an attribute forgets the one
    at hand by itself; one that is given it by `add_module`, as ModuleDict does, keeps it until this is repeated. It would not
    forget a buffer, and some give themselves another while they compute: these stay where they are.
    """
    for module in model.modules():
        vars(module).update(module._parameters)
        vars(module).update(module._modules)
