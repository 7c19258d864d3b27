"""A Tree-LSTM in PyTorch, level by level: as fast as plain PyTorch allows, as far as we know how.

The order of the nodes is found beforehand. The products of the features are done for all leaves and
for all inner nodes at once; each level then takes its children by one gather, and adds up in one
reshape where all of its nodes have as many children, by `index_add` where they have not.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch_settings import learning, versions  # noqa: F401

CELLS = ("child-sum", "N-ary")


class Level(NamedTuple):
    """How the inner nodes of a level take their children, which are the level below."""

    place: torch.Tensor  # of each child among the inner nodes and leaves of the level below
    owner: torch.Tensor  # of each child, among the nodes of the level
    nodes: int
    each: int | None  # children of each node, if all have as many


class Ready(NamedTuple):
    """A batch and the order of its nodes."""

    leaf_features: torch.Tensor
    inner_features: torch.Tensor
    leaf_counts: list[int]
    inner_counts: list[int]
    levels: list[Level]
    root_order: torch.Tensor
    targets: torch.Tensor


class Model(torch.nn.Module):
    def __init__(self, cell: str, weights: dict[str, np.ndarray]):
        super().__init__()
        self.cell = cell
        for name, value in weights.items():
            self.register_parameter(name, torch.nn.Parameter(torch.tensor(value)))
        self.units = self.bias.shape[0] // 4
        self.step = learning(self)

    def prepare(self, batch: Any) -> Ready:
        level, parents = batch.level, batch.parents
        deepest = int(level.max())
        has_child = np.zeros(len(parents), bool)
        has_child[parents[parents >= 0]] = True
        inner = [np.flatnonzero((level == at) & has_child) for at in range(deepest + 1)]
        leaves = [np.flatnonzero((level == at) & ~has_child) for at in range(deepest + 1)]
        place = np.zeros(len(parents), "int64")
        for here, ends in zip(inner, leaves, strict=True):
            place[here] = np.arange(len(here))
            place[ends] = len(here) + np.arange(len(ends))
        levels = []
        for at in range(deepest):
            children = np.concatenate([inner[at + 1], leaves[at + 1]])
            owner = place[parents[children]]
            order = np.lexsort([children, owner])  # by owner, then as they stand in the tree
            counts = np.bincount(owner)
            each = int(counts[0]) if (counts == counts[0]).all() else None
            levels.append(
                Level(
                    torch.tensor(place[children[order]]),
                    torch.tensor(owner[order]),
                    len(inner[at]),
                    each,
                )
            )
        features = torch.tensor(batch.features)
        roots = np.concatenate([inner[0], leaves[0]])
        return Ready(
            features[torch.tensor(np.concatenate(leaves[::-1]))],
            features[torch.tensor(np.concatenate(inner[::-1]))],
            [len(ends) for ends in leaves[::-1]],
            [len(here) for here in inner[::-1]],
            levels[::-1],
            torch.tensor(np.argsort(roots)),
            torch.tensor(batch.targets),
        )

    def forward(self, batch: Ready) -> torch.Tensor:
        units = self.units
        of_leaves = torch.addmm(
            self.bias[: 3 * units], batch.leaf_features, self.kernel[:, : 3 * units]
        )
        leaves = self.opened(of_leaves, None).split(batch.leaf_counts)
        inputs = torch.addmm(self.bias, batch.inner_features, self.kernel)
        inputs = inputs.split(batch.inner_counts)[1:]  # the deepest level has no inner nodes
        states = leaves[0]
        step = self.child_sum if self.cell == "child-sum" else self.nary
        for level, given, ends in zip(batch.levels, inputs, leaves[1:], strict=True):
            new = step(given, states.index_select(0, level.place), level)
            states = torch.cat([new, ends]) if len(ends) else new
        return states[:, :units].index_select(0, batch.root_order)

    def opened(self, gates: torch.Tensor, kept: torch.Tensor | None) -> torch.Tensor:
        """h and c side by side."""
        units = self.units
        doors = torch.sigmoid(gates[:, : 2 * units])
        memory = doors[:, :units] * torch.tanh(gates[:, 2 * units : 3 * units])
        if kept is not None:
            memory = memory + kept
        return torch.cat([doors[:, units:] * torch.tanh(memory), memory], 1)

    def child_sum(self, given: torch.Tensor, children: torch.Tensor, level: Level) -> torch.Tensor:
        units, each = self.units, level.each
        hidden, memory = children[:, :units], children[:, units:]
        forget = given[:, 3 * units :]
        if each is not None:
            product = (hidden @ self.forget_kernel).view(-1, each, units)
            forget = torch.sigmoid(product + forget[:, None])
            kept = (forget * memory.view(-1, each, units)).sum(1)
            total = hidden.view(-1, each, units).sum(1)
        else:
            product = torch.addmm(forget.index_select(0, level.owner), hidden, self.forget_kernel)
            both = torch.cat([hidden, torch.sigmoid(product) * memory], 1)
            sums = both.new_zeros(level.nodes, 2 * units).index_add(0, level.owner, both)
            total, kept = sums[:, :units], sums[:, units:]
        gates = torch.addmm(given[:, : 3 * units], total, self.recurrent_kernel)
        return self.opened(gates, kept)

    def nary(self, given: torch.Tensor, children: torch.Tensor, level: Level) -> torch.Tensor:
        if level.each != 2:
            raise ValueError("the N-ary cell of this peer takes full binary trees")
        units = self.units
        pair = children.view(-1, 2, 2 * units)
        product = pair[:, :, :units].reshape(-1, 2 * units) @ self.recurrent_kernel
        forget = product[:, 3 * units :].view(-1, 2, units) + given[:, None, 3 * units :]
        kept = (torch.sigmoid(forget) * pair[:, :, units:]).sum(1)
        return self.opened(product[:, : 3 * units] + given[:, : 3 * units], kept)

    def roots(self, batch: Ready) -> np.ndarray:
        return self.infer(batch).numpy()

    @torch.inference_mode()
    def infer(self, batch: Ready) -> torch.Tensor:
        return self(batch)

    def learn(self, batch: Ready) -> None:
        self.step(self(batch), batch.targets)
