import sys
from pathlib import Path

import click
import numpy as np
import pytest
import tree_models
import tree_peers
import trees
from rich.console import Console
from tree_peers import PeerError, Worker
from tree_samples import sentences

FAKE = """
import time
import numpy as np
CELLS = ("child-sum",)
def versions():
    return {"fake": "1.0"}
class Model:
    def __init__(self, cell, weights):
        self.kernel = weights["kernel"]
    def prepare(self, batch):
        time.sleep(0.02)
        return batch
    def roots(self, batch):
        if len(batch.splits) > 3:
            raise ValueError("only two trees")
        return batch.features[batch.parents < 0] @ self.kernel
    infer = learn = roots
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    (tmp_path / "fake_peer.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    worker = Worker("fake_peer", "Fake", Path(sys.executable), tmp_path / "log")
    yield worker
    worker.close()


def stored(batches, tmp_path):
    kernel = np.random.default_rng(0).normal(size=(tree_models.FEATURES, 2))
    tree_peers.store(batches, {"kernel": kernel}, tmp_path / "batches.npz")
    return tmp_path / "batches.npz", kernel


def test_a_peer_gets_our_trees_and_weights_and_gives_its_roots(fake, tmp_path):
    batches = sentences(3).batches(2)
    path, kernel = stored(batches, tmp_path)
    roots = fake.load(path, "child-sum", training=False)
    of_roots = [b.features(tree_models.FEATURES)[b.global_parents < 0] for b in batches]
    np.testing.assert_allclose(roots, np.concatenate(of_roots) @ kernel)
    assert fake.versions == {"fake": "1.0"}
    assert fake(3) > 0


def test_what_a_peer_prepares_is_timed_apart(fake, tmp_path):
    path, _ = stored(sentences(4).batches(2), tmp_path)
    fake.load(path, "child-sum", training=False)
    assert fake(1, task="prepare") > 0.04 > fake(1)


def test_a_peer_that_fails_says_so_and_goes_on(fake, tmp_path):
    path, _ = stored([sentences(3)], tmp_path)
    with pytest.raises(PeerError, match="Fake: ValueError: only two trees"):
        fake.load(path, "child-sum", training=False)
    path, _ = stored([sentences(2)], tmp_path)
    assert fake.load(path, "child-sum", training=True).shape == (2, 2)


def test_peers_that_cannot_take_part_are_named_in_plain_sentences(tmp_path, capsys):
    pythons = {"pytorch": tmp_path / "nowhere", "dynet": Path(sys.executable)}
    console = Console(width=300)
    assert trees.start(pythons, tmp_path, console) == []
    said = capsys.readouterr().out
    assert "pytorch-tree-lstm does not take part" in said
    assert "nowhere does not start" in said
    assert "DGL does not take part: no --peer dgl=PYTHON was given" in said
    assert "DyNet: ModuleNotFoundError" in said


def test_a_peer_is_named_with_its_python():
    assert trees.named(["dgl=/a=b/python"]) == {"dgl": Path("/a=b/python")}
    for wrong in ("keras=/python", "dgl"):
        with pytest.raises(click.BadParameter, match="expected NAME=PYTHON"):
            trees.named([wrong])
