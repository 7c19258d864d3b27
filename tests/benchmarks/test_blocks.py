import blocks
import harness
import pytest
import ratios
from peers import BLOCKS, ragged_pairs, recurrent

PAIRS = [*BLOCKS, *ragged_pairs(), *recurrent(8)]


def a_race(ratio):
    timing = harness.Timing(1e-3, 1e-3, 1e-3)
    return harness.Race(timing, timing, ratio, (ratio, ratio), runs=4, calls=1)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_a_pair_gives_outputs_of_one_shape_with_as_many_weights(pair):
    ours, peer = pair.models()
    assert ours.output_shape == peer.output_shape
    assert ours.count_params() == peer.count_params()


def test_a_pair_is_raced_in_training_inference_and_as_files():
    pair = next(pair for pair in BLOCKS if pair.name == "Softmax")
    for contest in (blocks.train, blocks.infer, blocks.exported):
        assert contest(pair, runs=3).ratio > 0


def test_a_ragged_pair_is_raced_as_files():
    pair = next(pair for pair in recurrent(8) if pair.name == "GRU ragged 8")
    assert blocks.exported(pair, runs=3).ratio > 0


def test_a_ragged_pair_is_raced_in_training_and_has_a_goal_of_its_own():
    pair = next(pair for pair in ragged_pairs() if pair.name == "MultiHeadAttention, unequal")
    rows, padded = pair.inputs()
    assert 0.25 < rows.values.shape[0] / (padded.shape[0] * padded.shape[1]) < 0.4
    assert blocks.train(pair, runs=3).ratio > 0
    text = ratios.verdicts({pair.name: {"train": a_race(0.6), "infer": a_race(0.9)}})
    assert text.startswith("Unequal rows: 1 of 2 ratios are 0.67 or less")


def test_a_goal_that_was_missed_is_named():
    rows = {
        "GRU": {"train": a_race(1.2), "infer": a_race(0.7), "exported": "no stock file"},
        "GRU masked 32": {"exported": a_race(0.6)},
    }
    text = ratios.verdicts(rows)
    assert "1 of 2 ratios" in text
    assert "GRU, training step: 1.20" in text
    assert "1 had no peer" in text
    assert "GRU masked 32, ONNX file: 0.60" in text


def test_the_picture_is_written(tmp_path):
    rows = {"GRU": {"train": a_race(1.2), "infer": a_race(0.7), "exported": a_race(0.3)}}
    assert ratios.plot(rows, tmp_path / "blocks.png").stat().st_size > 1000
