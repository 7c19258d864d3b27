"""A Tree-LSTM on DyNet, node by node as the formulas stand; DyNet batches what it can by itself.

Its graph is built anew for each batch of trees: that is how DyNet works, so it counts. The features
lie in a lookup table beforehand.
"""

from __future__ import annotations

import importlib.metadata
from typing import Any

import dynet_config

dynet_config.set(mem=2048, random_seed=1, autobatch=True)

import dynet as dy  # noqa: E402
import numpy as np  # noqa: E402

CELLS = ("child-sum", "N-ary")
LEARNING_RATE = 1e-3


def versions() -> dict[str, str]:
    return {"dynet38": importlib.metadata.version("dynet38")}


class Model:
    def __init__(self, cell: str, weights: dict[str, np.ndarray]):
        self.cell, self.units = cell, weights["bias"].shape[0] // 4
        self.collection = dy.ParameterCollection()
        self.features = dy.ParameterCollection()  # never trained
        units, take = self.units, self.collection.parameters_from_numpy
        kernel, bias = weights["kernel"].T, weights["bias"]
        self.w_iou, self.b_iou = take(kernel[: 3 * units]), take(bias[: 3 * units])
        self.w_f, self.b_f = take(kernel[3 * units :]), take(bias[3 * units :])
        recurrent = weights["recurrent_kernel"].T
        self.u_iou = take(recurrent[: 3 * units])
        if cell == "child-sum":
            self.u_f = [take(weights["forget_kernel"].T)]
        else:
            self.u_f = [take(rows) for rows in np.split(recurrent[3 * units :], 2)]
        self.trainer = dy.AdamTrainer(self.collection, alpha=LEARNING_RATE)

    def prepare(self, batch: Any) -> dict[str, Any]:
        children: list[list[int]] = [[] for _ in batch.parents]
        for node, parent in enumerate(batch.parents.tolist()):
            if parent >= 0:
                children[parent].append(node)
        return {
            "table": self.features.lookup_parameters_from_numpy(batch.features),
            "children": children,
            "order": np.argsort(-batch.level, kind="stable").tolist(),
            "roots": np.flatnonzero(batch.parents < 0).tolist(),
            "targets": batch.targets,
        }

    def graph(self, batch: dict[str, Any]) -> list[Any]:
        """The h of each root, not yet computed."""
        dy.renew_cg()
        step = self.child_sum if self.cell == "child-sum" else self.nary
        table, children = batch["table"], batch["children"]
        states: list[Any] = [None] * len(children)
        for node in batch["order"]:
            x = dy.lookup(table, node, update=False)
            below = [states[child] for child in children[node]]
            if below:
                states[node] = step(x, below)
            else:
                states[node] = self.opened(dy.affine_transform([self.b_iou, self.w_iou, x]), [])
        return [states[root][0] for root in batch["roots"]]

    def child_sum(self, x: Any, below: list[Any]) -> tuple[Any, Any]:
        total = dy.esum([h for h, _ in below])
        gates = dy.affine_transform([self.b_iou, self.w_iou, x, self.u_iou, total])
        own = dy.affine_transform([self.b_f, self.w_f, x])
        forget = [dy.logistic(own + self.u_f[0] * h) for h, _ in below]
        return self.opened(gates, [dy.cmult(f, c) for f, (_, c) in zip(forget, below, strict=True)])

    def nary(self, x: Any, below: list[Any]) -> tuple[Any, Any]:
        pair = dy.concatenate([h for h, _ in below])
        gates = dy.affine_transform([self.b_iou, self.w_iou, x, self.u_iou, pair])
        own = dy.affine_transform([self.b_f, self.w_f, x])
        forget = [dy.logistic(own + kernel * pair) for kernel in self.u_f]
        return self.opened(gates, [dy.cmult(f, c) for f, (_, c) in zip(forget, below, strict=True)])

    def opened(self, gates: Any, kept: list[Any]) -> tuple[Any, Any]:
        units = self.units
        doors = dy.logistic(dy.pick_range(gates, 0, 2 * units))
        proposal = dy.tanh(dy.pick_range(gates, 2 * units, 3 * units))
        memory = dy.cmult(dy.pick_range(doors, 0, units), proposal)
        memory = dy.esum([memory, *kept]) if kept else memory
        return dy.cmult(dy.pick_range(doors, units, 2 * units), dy.tanh(memory)), memory

    def roots(self, batch: dict[str, Any]) -> np.ndarray:
        return np.stack([h.npvalue() for h in self.infer(batch)])

    def infer(self, batch: dict[str, Any]) -> list[Any]:
        roots = self.graph(batch)
        dy.forward(roots)
        return roots

    def learn(self, batch: dict[str, Any]) -> None:
        roots = self.graph(batch)
        errors = [
            dy.squared_distance(h, dy.inputTensor(target))
            for h, target in zip(roots, batch["targets"], strict=True)
        ]
        loss = dy.esum(errors) * (1 / batch["targets"].size)
        loss.forward()
        loss.backward()
        self.trainer.update()
