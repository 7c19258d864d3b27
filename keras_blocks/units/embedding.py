"""Embedding: a table of vectors, looked up by symbol."""

from __future__ import annotations

from typing import Any, ClassVar

import keras
import tensorflow as tf

from keras_blocks.ragged import AcceptsRagged, is_ragged, map_values


@keras.saving.register_keras_serializable("keras_blocks")
class Embedding(AcceptsRagged, keras.layers.Embedding):
    """Looks up a trained vector for every symbol.

    y = E[x], which is the product of the one-hot vector of x and the table E

    Args:
        input_dim: int, the number of symbols; they are 0 to `input_dim - 1`.
        output_dim: int, the size of a symbol's vector.
        mask_zero: bool, whether symbol 0 marks a step to skip: later layers then get a mask. A
            ragged row ends where it ends and carries no mask, so there this must be False, and 0
            is a symbol like the others.
        **kwargs: as in `keras.layers.Embedding`: `embeddings_initializer`,
            `embeddings_regularizer`, `embeddings_constraint`, `weights`, `name`, `dtype`, ...

    Input shape:
        (batch, ...) of integers, dense or ragged.

    Output shape:
        (batch, ..., output_dim), ragged where the input is.

    Raises:
        ValueError: `input_dim` or `output_dim` is no positive integer, the input holds strings, or
            a ragged input meets `mask_zero=True`.

    Example:
        >>> import keras_blocks as kb, numpy as np
        >>> kb.Embedding(100, 8)(np.array([[3, 1, 4], [1, 5, 9]])).shape
        TensorShape([2, 3, 8])
    """

    twin_arguments: ClassVar = {
        "num_embeddings": "input_dim",
        "vocabulary_size": "input_dim",
        "vocab_size": "input_dim",
        "embedding_dim": "output_dim",
        "units": "output_dim",
        "padding_idx": "mask_zero",
        "input_length": "Rows may have any length: leave it out.",
    }

    def __init__(self, input_dim: int, output_dim: int, mask_zero: bool = False, **kwargs: Any):
        super().__init__(input_dim, output_dim, mask_zero=mask_zero, **kwargs)

    def call(self, inputs: Any) -> Any:
        """Looks the symbols up."""
        self._refuse_strings(inputs)
        if is_ragged(inputs):
            return map_values(self._look_up, inputs)
        return self._look_up(inputs)

    def _refuse_strings(self, inputs: Any) -> None:
        if inputs.dtype == tf.string:
            raise ValueError(
                f"Embedding '{self.name}': symbols must be integers from 0 to "
                f"{self.input_dim - 1}. Received: strings. Turn them into integers first, for "
                "example with keras.layers.StringLookup."
            )

    def _look_up(self, symbols: Any) -> Any:
        table = self.embeddings
        if not isinstance(table, keras.Variable) or isinstance(symbols, tf.SparseTensor):
            return super().call(symbols)
        # The rows alone: once a table was updated by rows, TensorFlow copies it to read the whole.
        symbols = tf.convert_to_tensor(symbols)
        if symbols.dtype not in (tf.int32, tf.int64):
            symbols = tf.cast(symbols, tf.int32)
        symbols = tf.where(symbols < 0, symbols + self.input_dim, symbols)
        return tf.cast(tf.gather(table.value, symbols), self.compute_dtype)

    def quantize(self, mode: Any = None, type_check: bool = True, config: Any = None) -> None:
        """Quantizes the table as the twin does; a subclass must say that it can be."""
        super().quantize(mode, type_check=type_check and type(self) is not Embedding, config=config)

    def quantized_call(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Looks the symbols up in the quantized table."""
        self._refuse_strings(inputs)
        if is_ragged(inputs):
            return map_values(super().quantized_call, inputs)
        return super().quantized_call(inputs, *args, **kwargs)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """True where the symbol is not 0, if `mask_zero`."""
        if self.mask_zero and is_ragged(inputs):
            raise ValueError(
                f"Embedding '{self.name}': mask_zero=True marks the padding of a dense batch, but "
                "the input is ragged and needs none. Leave the zeros out of the rows and pass "
                "mask_zero=False; 0 is then a symbol like the others."
            )
        return super().compute_mask(inputs, mask)

    def ragged_output_spec(self, outputs: Any) -> Any:
        """The twin already says whether its output is ragged."""
        return outputs
