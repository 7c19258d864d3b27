"""The Tree-LSTM of examples/sentiment_trees in PyTorch, level by level, to race its epoch with.

Run by `sentiment_epoch.py` under a Python that has torch; it shares no module with the example. The
levels of each batch are found before the clock runs. There are two twins:

height: as most do it: nodes by height, states written into one buffer, children read from it.
depth: our formulation: nodes by depth, the deepest first, so that the children of a level are the
    level before, and nothing but that level is carried; no buffer.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn


@dataclass(frozen=True)
class Level:
    """The nodes of one depth: those with children, then the leaves.

    Args:
        leaves: int, how many leaves stand at the end; they are the next of all leaves.
        children: (inner nodes of the depth above, 2), places in this level.
    """

    leaves: int
    children: torch.Tensor


@dataclass(frozen=True)
class Batch:
    """Sentences, their levels from the deepest to the first below the roots.

    Args:
        words: (leaves,), deepest first.
        labels: (nodes,), in the order of the states: level by level, deepest first.
        roots: int, how many sentences.
        root_leaves: int, sentences of one word.
    """

    words: torch.Tensor
    labels: torch.Tensor
    levels: list[Level]
    roots: int
    root_leaves: int


@dataclass(frozen=True)
class Heights:
    """The same sentences for the twin with a buffer.

    Args:
        words: (leaves,), in the order of the leaves.
        leaves: (leaves,), the places of the leaves.
        labels: (nodes,), in the order of the nodes.
        levels: the places of the nodes of each height from 1 on, and of their pairs of children.
        roots: int, how many sentences.
    """

    words: torch.Tensor
    leaves: torch.Tensor
    labels: torch.Tensor
    levels: list[tuple[torch.Tensor, torch.Tensor]]
    roots: int


class TreeLSTM(nn.Module):
    """N-ary Tree-LSTM over pairs, words at the leaves, scores at every node."""

    def __init__(self, words: int, embedded: int, hidden: int, classes: int, dropout: float):
        super().__init__()
        self.table = nn.Embedding(words, embedded, sparse=True)
        nn.init.uniform_(self.table.weight, -0.05, 0.05)
        self.kernel = nn.Linear(embedded, 3 * hidden)
        self.pair = nn.Linear(2 * hidden, 5 * hidden)
        self.dropout = nn.Dropout(dropout)
        self.scores = nn.Linear(hidden, classes)
        self.hidden = hidden

    def forward(self, batch: Batch | Heights) -> torch.Tensor:
        """(nodes, classes), in the order of the batch's labels."""
        states = self.by_depth(batch) if isinstance(batch, Batch) else self.by_height(batch)
        return self.scores(self.dropout(states[:, : self.hidden]))

    def by_depth(self, batch: Batch) -> torch.Tensor:
        """(nodes, h and c), level by level."""
        leaves = self.of_leaves(batch.words)
        counts = [level.leaves for level in batch.levels] + [batch.root_leaves]
        own = leaves.split(counts)
        levels = [own[0]]
        for level, next_leaves in zip(batch.levels, own[1:], strict=True):
            inner = self.level(levels[-1], level.children)
            levels.append(torch.cat([inner, next_leaves]))
        return torch.cat(levels)

    def by_height(self, batch: Heights) -> torch.Tensor:
        """(nodes, h and c), as given."""
        states = torch.zeros(len(batch.labels), 2 * self.hidden)
        states[batch.leaves] = self.of_leaves(batch.words)
        for nodes, children in batch.levels:
            states[nodes] = self.level(states, children)
        return states

    def of_leaves(self, words: torch.Tensor) -> torch.Tensor:
        """(leaves, h and c)."""
        size = self.hidden
        gates = self.kernel(self.table(words))
        squashed, proposal = gates.split([2 * size, size], dim=1)
        let_in, let_out = squashed.sigmoid().chunk(2, dim=1)
        memory = let_in * proposal.tanh()
        return torch.cat([let_out * memory.tanh(), memory], dim=1)

    def level(self, below: torch.Tensor, children: torch.Tensor) -> torch.Tensor:
        """(inner nodes, h and c) from the states of the level below."""
        size = self.hidden
        pairs = below.index_select(0, children.reshape(-1)).view(-1, 2, 2 * size)
        hidden, memory = pairs.split(size, dim=2)
        gates = self.pair(hidden.reshape(-1, 2 * size))
        squashed, proposal = gates.split([4 * size, size], dim=1)
        let_in, let_out, *forget = squashed.sigmoid().chunk(4, dim=1)
        new = let_in * proposal.tanh() + forget[0] * memory[:, 0] + forget[1] * memory[:, 1]
        return torch.cat([let_out * new.tanh(), new], dim=1)


def batches(record: dict[str, np.ndarray], form: str) -> list[Batch] | list[Heights]:
    """The batches of the driver's file, with their levels, for the twin of this form."""
    nodes, words = record["node_splits"], record["word_splits"]
    made = {"depth": _by_depth, "height": _by_height}[form]
    found = []
    for rows in np.split(record["order"], record["batch_ends"]):
        starts = np.cumsum([0, *(nodes[row + 1] - nodes[row] for row in rows)])
        trees = [record["parents"][nodes[row] : nodes[row + 1]] for row in rows]
        shifted = zip(trees, starts, strict=False)
        parent = np.concatenate([np.where(tree < 0, -1, tree + start) for tree, start in shifted])
        labels = [record["classes"][nodes[row] : nodes[row + 1]] for row in rows]
        leaves = [record["words"][words[row] : words[row + 1]] for row in rows]
        found.append(made(parent, np.concatenate(labels), np.concatenate(leaves), len(rows)))
    return found


def _by_depth(parent: np.ndarray, labels: np.ndarray, words: np.ndarray, roots: int) -> Batch:
    depth = np.zeros(len(parent), int)
    for node, above in enumerate(parent):  # parents stand before their children
        depth[node] = depth[above] + 1 if above >= 0 else 0
    is_leaf = _is_leaf(parent)
    place, order, levels = np.zeros(len(parent), int), [], []
    for level in range(depth.max(), -1, -1):
        members = np.flatnonzero(depth == level)
        inner, outer = members[~is_leaf[members]], members[is_leaf[members]]
        order.append(np.concatenate([inner, outer]))
        place[order[-1]] = np.arange(len(members))
        if level > 0:
            levels.append(Level(len(outer), torch.from_numpy(place[_pairs(members, parent)])))
    every = np.concatenate(order)
    word_of = np.zeros(len(parent), int)
    word_of[is_leaf] = words
    return Batch(
        torch.from_numpy(word_of[every[is_leaf[every]]]),
        torch.from_numpy(labels[every].astype(int)),
        levels, roots, int(is_leaf[order[-1]].sum()),
    )  # fmt: skip


def _by_height(parent: np.ndarray, labels: np.ndarray, words: np.ndarray, roots: int) -> Heights:
    height = np.zeros(len(parent), int)
    for node in range(len(parent) - 1, -1, -1):
        if parent[node] >= 0:
            height[parent[node]] = max(height[parent[node]], height[node] + 1)
    levels = []
    for level in range(1, height.max() + 1):
        nodes = np.flatnonzero(height == level)
        children = _pairs(np.flatnonzero(np.isin(parent, nodes)), parent)
        levels.append((torch.from_numpy(nodes), torch.from_numpy(children)))
    leaves = torch.from_numpy(np.flatnonzero(_is_leaf(parent)))
    classes = torch.from_numpy(labels.astype(int))
    return Heights(torch.from_numpy(words.astype(int)), leaves, classes, levels, roots)


def _is_leaf(parent: np.ndarray) -> np.ndarray:
    return np.bincount(parent[parent >= 0], minlength=len(parent)) == 0


def _pairs(children: np.ndarray, parent: np.ndarray) -> np.ndarray:
    """(parents of these nodes, 2): both children, in the order of the parents."""
    return children[np.argsort(parent[children], kind="stable")].reshape(-1, 2)


def epoch(
    model: TreeLSTM, learned: list[Batch] | list[Heights], optimizers: list[torch.optim.Optimizer]
) -> float:
    """One pass over the batches; the mean loss."""
    total = 0.0
    for batch in learned:
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        scores = model(batch)
        loss = nn.functional.cross_entropy(scores, batch.labels, reduction="sum") / batch.roots
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        total += loss.item()
    return total / len(learned)


def main(path: str, threads: int, form: str) -> None:
    """Answers each line on stdin with an epoch: its seconds, its processor time and its loss."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    with np.load(path) as file:
        record = dict(file)
    learned = batches(record, form)
    sizes = json.loads(str(record["sizes"]))
    model = TreeLSTM(**sizes)
    others = [w for name, w in model.named_parameters() if not name.startswith("table")]
    rates = json.loads(str(record["rates"]))
    optimizers = [
        torch.optim.Adagrad(others, rates["weights"], weight_decay=rates["decay"]),
        torch.optim.SGD(model.table.parameters(), rates["words"]),
    ]
    print(json.dumps({"torch": torch.__version__, "threads": torch.get_num_threads()}), flush=True)
    for _ in sys.stdin:
        start, worked = time.perf_counter(), time.process_time()
        loss = epoch(model, learned, optimizers)
        taken = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - worked}
        print(json.dumps({**taken, "loss": loss}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
