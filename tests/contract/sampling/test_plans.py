"""Few shapes, all of them or more; and large ones for several threads."""

from __future__ import annotations

import numpy as np
import pytest

from keras_blocks.contract import Contract, TensorSpec
from keras_blocks.contract.sampling.plans import crowd, dense, plans_of
from keras_blocks.contract.sampling.samples import draw_samples
from keras_blocks.export.lowerings.trees.upward import FEW_NODES

SEQUENCE = TensorSpec("x", "float32", ("batch", "x.time", 4))
RAGGED = TensorSpec("x", "float32", ("x.values", 4), ragged=True)
IMAGE = TensorSpec("image", "float32", ("batch", 8, "image.axis2", 3))
OUTPUT = TensorSpec("y", "float32", ("batch", 3))


def descriptions(spec: TensorSpec, shapes: str) -> list[str]:
    contract = Contract((spec,), (OUTPUT,))
    return [s.description for s in draw_samples(contract, plans=plans_of(contract, shapes))]


@pytest.mark.parametrize("spec", [SEQUENCE, RAGGED, IMAGE], ids=["dense", "ragged", "image"])
def test_each_level_has_the_shapes_of_the_one_before(spec):
    few, every, many = (descriptions(spec, shapes) for shapes in ("few", "all", "many"))
    assert 5 <= len(few) <= 6
    assert set(few) < set(every) < set(many)
    assert len(many) > 1.8 * len(every)


@pytest.mark.parametrize("spec", [SEQUENCE, RAGGED], ids=["dense", "ragged"])
def test_few_shapes_still_hold_a_mask_in_front_and_between_and_large_numbers(spec):
    text = "; ".join(descriptions(spec, "few"))
    for trap in ("floats times 10", "zeros in between"):
        assert trap in text
    if spec is RAGGED:
        assert "no rows" in text
        assert "rows of 6, 0" in text


@pytest.mark.parametrize("rows", ["batch", 1])
@pytest.mark.parametrize("shapes", ["few", "all", "many"])
def test_trees_are_tried_in_batches_that_a_file_takes_as_small_and_as_large(shapes, rows):
    parents = TensorSpec("p", "int32", ("p.values",), ragged=True, tree_of="x")
    contract = Contract((RAGGED, parents, TensorSpec("z", "float32", (rows, 3))), (OUTPUT,))
    samples = draw_samples(contract, plans=plans_of(contract, shapes))
    nodes = [sample.shapes["p"][0] for sample in samples]
    assert sum(0 < number <= FEW_NODES for number in nodes) > 2
    assert any(number > FEW_NODES for number in nodes)


def test_images_are_tried_with_pixels():
    contract = Contract((IMAGE,), (OUTPUT,))
    (sample,) = (s for s in draw_samples(contract) if s.description.endswith("pixels"))
    pixels = sample.feed["image"]
    assert pixels.dtype == np.float32
    assert (pixels.min(), pixels.max()) > (-1, 200)
    np.testing.assert_array_equal(pixels, np.round(pixels))
    assert not any("pixels" in text for text in descriptions(SEQUENCE, "many"))


@pytest.mark.parametrize("spec", [SEQUENCE, RAGGED], ids=["dense", "ragged"])
def test_a_crowd_has_as_many_rows_as_were_asked_for(spec):
    contract = Contract((spec,), (OUTPUT,))
    (sample,) = draw_samples(contract, plans=(crowd(dense(1, 17), 500, spec.ragged),))
    if spec.ragged:
        lengths = np.diff(sample.feed["x.row_splits"])
        assert len(lengths) == 500
        assert {0, 1, 33} <= set(lengths.tolist())
    else:
        assert sample.shapes["x"] == (500, 17, 4)
