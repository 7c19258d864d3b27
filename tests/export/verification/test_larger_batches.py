"""A file is not blamed for a sum that Keras takes for a bias, and for nothing else either."""

import keras
import onnx
import pytest

from keras_blocks.export import check_parity, export_onnx

layers = keras.layers


def duel(actions: int) -> keras.Model:
    """Advantages of some actions and the value of the state, a column, added up."""
    x = keras.Input((4,), name="x")
    value = layers.Dense(1, name="value")(x)
    return keras.Model(x, layers.Dense(actions, name="advantages")(x) + value, name="duel")


def test_batches_that_were_tried_are_not_tried_again_for_want_of_empty_ones(tmp_path):
    report = export_onnx(duel(2), tmp_path / "m.onnx", verify="thorough", time_budget=5).parity
    assert not any(note.startswith("Not as in Keras") for note in report.notes)


@pytest.mark.parametrize("actions", [2, 3, 5, 7, 17])
def test_a_column_may_be_added_to_as_many_channels_as_there_are_rows(actions, tmp_path):
    report = export_onnx(duel(actions), tmp_path / "m.onnx").parity
    assert report.ok
    said = [note for note in report.notes if "Keras contradicts itself" in note]
    assert all(f"batch {actions} " in note for note in said)


def test_keras_contradicts_itself_where_it_is_noted(tmp_path):
    notes = [export_onnx(duel(n), tmp_path / "m.onnx").parity.notes for n in (2, 3, 5, 7, 17)]
    # Of the batches of these sizes every other one runs op by op.
    assert any("a batch of" in note for found in notes for note in found)


def test_a_file_that_adds_the_column_as_keras_does_is_wrong(tmp_path):
    path = tmp_path / "m.onnx"
    export_onnx(duel(3), path, verify=False)
    file = onnx.load(path)
    (add,) = (n for n in file.graph.node if n.output[0] == file.graph.output[0].name)
    column = next(i for i, name in enumerate(add.input) if "value" in name)
    turned = onnx.helper.make_node("Transpose", [add.input[column]], ["row"], perm=[1, 0])
    file.graph.node.insert(len(file.graph.node) - 1, turned)
    file.graph.node[-1].input[column] = "row"
    onnx.save(file, path)
    assert not check_parity(duel(3), path).ok
