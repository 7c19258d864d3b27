"""The package pytorch-tree-lstm, with its own preparation of the trees done beforehand."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch_settings
import treelstm

CELLS = ("child-sum",)


def versions() -> dict[str, str]:
    return torch_settings.versions("pytorch-tree-lstm")


class Model:
    def __init__(self, cell: str, weights: dict[str, np.ndarray]):
        units = weights["bias"].shape[0] // 4
        self.layer = treelstm.TreeLSTM(weights["kernel"].shape[0], units)
        kernel, bias = torch.tensor(weights["kernel"].T), torch.tensor(weights["bias"])
        with torch.no_grad():
            self.layer.W_iou.weight.copy_(kernel[: 3 * units])
            self.layer.W_iou.bias.copy_(bias[: 3 * units])
            self.layer.W_f.weight.copy_(kernel[3 * units :])
            self.layer.W_f.bias.copy_(bias[3 * units :])
            self.layer.U_iou.weight.copy_(torch.tensor(weights["recurrent_kernel"].T))
            self.layer.U_f.weight.copy_(torch.tensor(weights["forget_kernel"].T))
        self.step = torch_settings.learning(self.layer)

    def prepare(self, batch: Any) -> dict[str, Any]:
        """As the package's README does it: orders for each tree, then one batch of them."""
        trees = []
        for start, end in zip(batch.splits[:-1], batch.splits[1:], strict=True):
            parents = batch.parents[start:end] - start
            children = np.flatnonzero(parents >= 0)
            edges = np.stack([parents[children], children], 1)
            edges = edges[np.argsort(edges[:, 0], kind="stable")]  # siblings must stand together
            node_order, edge_order = treelstm.calculate_evaluation_orders(edges, end - start)
            trees.append(
                {
                    "features": torch.tensor(batch.features[start:end]),
                    "node_order": torch.tensor(node_order),
                    "edge_order": torch.tensor(edge_order),
                    "adjacency_list": torch.tensor(edges),
                }
            )
        inputs = treelstm.batch_tree_input(trees)
        del inputs["tree_sizes"]
        roots = torch.tensor(np.flatnonzero(batch.parents < 0))
        return {"inputs": inputs, "roots": roots, "targets": torch.tensor(batch.targets)}

    def forward(self, batch: dict[str, Any]) -> torch.Tensor:
        return self.layer(**batch["inputs"])[0][batch["roots"]]

    def roots(self, batch: dict[str, Any]) -> np.ndarray:
        return self.infer(batch).numpy()

    @torch.inference_mode()
    def infer(self, batch: dict[str, Any]) -> torch.Tensor:
        return self.forward(batch)

    def learn(self, batch: dict[str, Any]) -> None:
        self.step(self.forward(batch), batch["targets"])
