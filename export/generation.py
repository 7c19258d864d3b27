"""What a causal language model does when it generates, as Keras models that can be exported.

from keras_blocks.export import decoding_step, export_onnx, generation_loop

export_onnx(decoding_step(causal_lm), "step.onnx")        # one step, with its cache
causal_lm.compile(sampler="greedy")
export_onnx(generation_loop(causal_lm), "generate.onnx")  # from the prompt to the text
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

# The outputs of a file may not be called as its inputs are.
_GENERATED = {"generated_ids": "token_ids", "generated_mask": "padding_mask"}


def decoding_step(causal_lm: keras.Model) -> keras.Model:
    """The generation step of a causal language model, with its cache as input and output.

    The cache has room for as many tokens as `past` has steps; of a new text it is zeros. The new
    tokens, one or a whole prompt, go into it from `position` on, or from as far as leaves room for
    them.

    Args:
        causal_lm: a `keras_hub.models.CausalLM`, or any model with its method
            `call_with_cache(token_ids, cache, cache_update_index)`, which gives the logits, hidden
            states and the new cache, and `_build_cache(token_ids)`, which gives a first cache last.

    Returns:
        A functional model of three inputs: `token_ids` (batch, new tokens), `past`, the cache, and
        `position` (1,), the number of tokens before the new ones; its outputs are `logits`
        (batch, new tokens, vocabulary) and `present`, the cache with the new tokens in it.

    Raises:
        TypeError: the model has no such methods.
    """
    _ask_for(causal_lm, "call_with_cache", "_build_cache")
    cache = _cache_spec(causal_lm)
    # The tokens first, so that the proof's free sizes grow from them to the cache.
    given = [
        keras.Input((None,), dtype="int32", name="token_ids"),
        keras.Input(cache.shape[1:], dtype=cache.dtype.name, name="past"),
        keras.Input(batch_shape=(1,), dtype="int32", name="position"),
    ]
    lengths = [axis for axis, size in enumerate(cache.shape) if axis > 0 and size is None]
    step = _DecodingStep(causal_lm, lengths[0] if len(lengths) == 1 else None)
    return keras.Model(given, step(given), name=f"{causal_lm.name}_step")


def generation_loop(
    causal_lm: keras.Model, stop_token_ids: Sequence[int] | None = None
) -> keras.Model:
    """The whole generation of a causal language model: one file that goes from prompt to text.

    The sampler is the one that the model was compiled with; a file draws no random numbers, so that
    it must be `causal_lm.compile(sampler="greedy")`.

    Args:
        causal_lm: a `keras_hub.models.CausalLM`, or any model with its method
            `generate_step(inputs, stop_token_ids)`.
        stop_token_ids: ints, the tokens that end a text; None fills all of `token_ids`.

    Returns:
        A functional model. Its inputs are `token_ids` (batch, length), the prompts with room for
        what is to come, and `padding_mask` (batch, length), 1 where the prompt is; its outputs
        `generated_ids` and `generated_mask` are the same for the whole text.

    Raises:
        TypeError: the model has no such method.
    """
    _ask_for(causal_lm, "generate_step")
    given = {
        name: keras.Input((None,), dtype="int32", name=name)
        for name in ("token_ids", "padding_mask")
    }
    loop = _GenerationLoop(causal_lm, stop_token_ids)
    return keras.Model(given, loop(given), name=f"{causal_lm.name}_generation")


class _DecodingStep(keras.layers.Layer):
    """One call of `call_with_cache`; `length_axis` is that of the cache's steps, if it has any."""

    def __init__(self, causal_lm: keras.Model, length_axis: int | None):
        super().__init__(name="step", dtype=causal_lm.dtype_policy)
        self.causal_lm, self.length_axis = causal_lm, length_axis

    def call(self, inputs: list[Any]) -> dict[str, Any]:
        token_ids, past, (position,) = *inputs[:2], keras.ops.unstack(inputs[2])
        if self.length_axis is not None:
            # Models disagree on what lies beyond: some move their tokens back, others fail.
            room = keras.ops.shape(past)[self.length_axis] - keras.ops.shape(token_ids)[1]
            position = keras.ops.clip(position, 0, room)
        logits, _, cache = self.causal_lm.call_with_cache(token_ids, past, position)
        return {"logits": logits, "present": cache}


class _GenerationLoop(keras.layers.Layer):
    """One call of `generate_step`."""

    def __init__(self, causal_lm: keras.Model, stop_token_ids: Sequence[int] | None):
        super().__init__(name="generation", dtype=causal_lm.dtype_policy)
        self.causal_lm = causal_lm
        self.stop_token_ids = None if stop_token_ids is None else tuple(stop_token_ids)

    def call(self, inputs: dict[str, Any]) -> dict[str, Any]:
        given = {**inputs, "padding_mask": keras.ops.cast(inputs["padding_mask"], "bool")}
        made = self.causal_lm.generate_step(given, self.stop_token_ids)
        return {name: keras.ops.cast(made[key], "int32") for name, key in _GENERATED.items()}

    def compute_output_spec(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return {name: keras.KerasTensor((None, None), "int32") for name in _GENERATED}


def _cache_spec(causal_lm: keras.Model) -> Any:
    """The shape and element type of the cache, of free batch and length."""
    build = tf.function(lambda ids: causal_lm._build_cache(ids)[-1], autograph=False)
    return build.get_concrete_function(tf.TensorSpec((None, None), tf.int32)).outputs[0]


def _ask_for(model: keras.Model, *methods: str) -> None:
    missing = [name for name in methods if not hasattr(model, name)]
    if missing:
        raise TypeError(
            f"`causal_lm` must generate as a keras_hub.models.CausalLM does. Received: {model!r}, "
            f"without {', '.join(missing)}."
        )
