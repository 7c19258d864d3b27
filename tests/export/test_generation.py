"""Files of what a causal language model does when it generates: a step with its cache, the loop."""

import keras
import numpy as np
import onnxruntime
import pytest

from keras_blocks.export import decoding_step, export_onnx, generation_loop

layers, ops = keras.layers, keras.ops
WORDS, WIDTH = 12, 8
END = 3


class TinyLM(keras.Model):
    """One layer of attention over a cache (batch, length, 2, width), greedy."""

    def __init__(self):
        super().__init__()
        self.embedding = layers.ReversibleEmbedding(WORDS, WIDTH)
        self.maps = [layers.Dense(WIDTH) for _ in range(3)]
        for layer in self.maps:
            layer.build((None, None, WIDTH))
        self.embedding.build((None, None))
        self.built = True

    def call_with_cache(self, token_ids, cache, cache_update_index):
        x = self.embedding(token_ids)
        query, *pair = (layer(x) for layer in self.maps)
        cache = ops.slice_update(cache, (0, cache_update_index, 0, 0), ops.stack(pair, axis=2))
        key, value = cache[:, :, 0], cache[:, :, 1]
        steps = ops.arange(ops.shape(cache)[1])[None] > (
            ops.arange(ops.shape(token_ids)[1])[:, None] + cache_update_index
        )
        scores = ops.matmul(query, ops.transpose(key, (0, 2, 1))) - 1e9 * ops.cast(steps, "float32")
        hidden = x + ops.matmul(ops.softmax(scores), value)
        return self.embedding(hidden, reverse=True), hidden, cache

    def _build_cache(self, token_ids):
        shape = (*ops.shape(token_ids), 2, WIDTH)
        _, hidden, cache = self.call_with_cache(token_ids, ops.zeros(shape), 0)
        return hidden, cache

    def generate_step(self, inputs, stop_token_ids=None):
        ids, mask = inputs["token_ids"], inputs["padding_mask"]
        _, cache = self._build_cache(ids)
        first = ops.min(ops.sum(ops.cast(mask, "int32"), axis=1))

        def going_on(index, ids, cache):
            ended = ops.any((ids == stop_token_ids[0]) & ~mask, axis=1) if stop_token_ids else False
            return ops.logical_not(ops.all(ended))

        def step(index, ids, cache):
            last = ops.slice(ids, (0, index - 1), (ops.shape(ids)[0], 1))
            logits, _, cache = self.call_with_cache(last, cache, index - 1)
            next_ids = ops.cast(ops.argmax(logits[:, 0], axis=-1), ids.dtype)
            next_ids = ops.where(mask[:, index], ids[:, index], next_ids)
            return index + 1, ops.slice_update(ids, (0, index), next_ids[:, None]), cache

        rounds = ops.shape(ids)[1] - first
        _, ids, _ = ops.while_loop(going_on, step, (first, ids, cache), maximum_iterations=rounds)
        return {"token_ids": ids, "padding_mask": ops.ones_like(ids, dtype="bool")}


@pytest.fixture(scope="module")
def tiny():
    keras.utils.set_random_seed(3)
    return TinyLM()


@pytest.fixture(scope="module")
def step(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("step") / "step.onnx"
    result = export_onnx(decoding_step(tiny), path, verify="fast", verbose=False)
    shapes = [check.input_shapes for check in result.parity.checks]
    assert any(shape["past"][0] > 1 for shape in shapes)
    assert any(shape["past"][1] > shape["token_ids"][1] for shape in shapes)
    return onnxruntime.InferenceSession(str(path))


@pytest.fixture(scope="module")
def loop(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("loop") / "loop.onnx"
    export_onnx(generation_loop(tiny, [END]), path, verify="fast", verbose=False)
    return onnxruntime.InferenceSession(str(path))


def prompts(length):
    ids = np.random.default_rng(0).integers(0, WORDS, (3, length)).astype("int32")
    mask = (np.arange(length)[None] < [[2], [3], [2]]).astype("int32")
    return ids * mask, mask


def test_the_step_names_its_cache_past_and_present(step):
    assert [node.name for node in step.get_inputs()] == ["token_ids", "past", "position"]
    assert [node.name for node in step.get_outputs()] == ["logits", "present"]


def test_steps_of_one_token_give_what_the_whole_text_gives(tiny, step):
    ids = np.random.default_rng(1).integers(0, WORDS, (2, 6)).astype("int32")
    cache = np.zeros((2, 6, 2, WIDTH), "float32")
    wanted = np.asarray(tiny.call_with_cache(ids, ops.convert_to_tensor(cache), 0)[0])
    for position in range(6):
        given = {
            "token_ids": ids[:, position : position + 1],
            "past": cache,
            "position": np.int32([position]),
        }
        logits, cache = step.run(None, given)
        np.testing.assert_allclose(logits[:, 0], wanted[:, position], rtol=1e-4, atol=1e-5)


def test_tokens_behind_the_end_of_the_cache_are_moved_inside(step):
    cache = np.random.default_rng(2).normal(size=(1, 4, 2, WIDTH)).astype("float32")
    ids = np.int32([[5, 7]])
    last, beyond = (
        step.run(None, {"token_ids": ids, "past": cache, "position": np.int32([position])})
        for position in (2, 9)
    )
    for one, other in zip(last, beyond, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_loop_generates_what_the_model_generates(tiny, loop):
    ids, mask = prompts(9)
    wanted = tiny.generate_step({"token_ids": ids, "padding_mask": mask.astype(bool)}, (END,))
    got, _ = loop.run(["generated_ids", "generated_mask"], {"token_ids": ids, "padding_mask": mask})
    np.testing.assert_array_equal(got, wanted["token_ids"])
    assert not np.array_equal(got, ids)


def test_a_model_that_does_not_generate_is_refused():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    with pytest.raises(TypeError, match="without call_with_cache, _build_cache"):
        decoding_step(model)
    with pytest.raises(TypeError, match="without generate_step"):
        generation_loop(model)
