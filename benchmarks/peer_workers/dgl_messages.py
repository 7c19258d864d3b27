"""A Tree-LSTM on DGL, by the messages of DGL's own example: `prop_nodes_topo` up the trees.

The graph of the batch is made beforehand. Unlike in the example the features of inner nodes count,
in the forget gates too: so it computes what all the others do.
"""

from __future__ import annotations

from typing import Any

import dgl
import numpy as np
import torch
import torch_settings

CELLS = ("child-sum", "N-ary")


def versions() -> dict[str, str]:
    return torch_settings.versions("dgl")


class Model(torch.nn.Module):
    def __init__(self, cell: str, weights: dict[str, np.ndarray]):
        super().__init__()
        self.cell = cell
        for name, value in weights.items():
            self.register_parameter(name, torch.nn.Parameter(torch.tensor(value)))
        self.units = self.bias.shape[0] // 4
        self.step = torch_settings.learning(self)

    def prepare(self, batch: Any) -> dict[str, Any]:
        children = np.flatnonzero(batch.parents >= 0)
        edges = (torch.tensor(children), torch.tensor(batch.parents[children]))
        return {
            "graph": dgl.graph(edges, num_nodes=len(batch.parents)),
            "features": torch.tensor(batch.features),
            "roots": torch.tensor(np.flatnonzero(batch.parents < 0)),
            "targets": torch.tensor(batch.targets),
        }

    def forward(self, batch: dict[str, Any]) -> torch.Tensor:
        graph, units = batch["graph"].local_var(), self.units
        own = torch.addmm(self.bias, batch["features"], self.kernel)
        graph.ndata["iou"], graph.ndata["forget"] = own.split([3 * units, units], 1)
        graph.ndata["h"] = own.new_zeros(len(own), units)
        graph.ndata["c"] = own.new_zeros(len(own), units)
        reduce = self.child_sum if self.cell == "child-sum" else self.nary
        dgl.prop_nodes_topo(graph, self.message, reduce, apply_node_func=self.apply_node)
        return graph.ndata["h"][batch["roots"]]

    def message(self, edges: Any) -> dict[str, torch.Tensor]:
        return {"h": edges.src["h"], "c": edges.src["c"]}

    def child_sum(self, nodes: Any) -> dict[str, torch.Tensor]:
        hidden, memory = nodes.mailbox["h"], nodes.mailbox["c"]
        forget = torch.sigmoid(hidden @ self.forget_kernel + nodes.data["forget"][:, None])
        iou = torch.addmm(nodes.data["iou"], hidden.sum(1), self.recurrent_kernel)
        return {"iou": iou, "c": (forget * memory).sum(1)}

    def nary(self, nodes: Any) -> dict[str, torch.Tensor]:
        units, memory = self.units, nodes.mailbox["c"]
        product = nodes.mailbox["h"].reshape(len(memory), -1) @ self.recurrent_kernel
        forget = product[:, 3 * units :].view(memory.shape) + nodes.data["forget"][:, None]
        kept = (torch.sigmoid(forget) * memory).sum(1)
        return {"iou": product[:, : 3 * units] + nodes.data["iou"], "c": kept}

    def apply_node(self, nodes: Any) -> dict[str, torch.Tensor]:
        i, o, u = nodes.data["iou"].chunk(3, 1)
        memory = torch.sigmoid(i) * torch.tanh(u) + nodes.data["c"]
        return {"h": torch.sigmoid(o) * torch.tanh(memory), "c": memory}

    def roots(self, batch: dict[str, Any]) -> np.ndarray:
        return self.infer(batch).numpy()

    # DGL writes into tensors that inference mode would have frozen.
    @torch.no_grad()
    def infer(self, batch: dict[str, Any]) -> torch.Tensor:
        return self(batch)

    def learn(self, batch: dict[str, Any]) -> None:
        self.step(self(batch), batch["targets"])
