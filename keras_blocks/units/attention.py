"""Multi-head attention over dense and ragged rows."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_blocks.ragged import (
    AcceptsRagged,
    from_dense,
    holds_ragged,
    is_ragged,
    map_values,
)
from keras_blocks.rows.groups import compute_in_groups
from keras_blocks.rows.reductions import call_by_rows


@keras.saving.register_keras_serializable("keras_blocks")
class MultiHeadAttention(AcceptsRagged, keras.layers.MultiHeadAttention):
    """Every step of a row looks at the steps of its row, or of the row of another sequence.

    head[h, t] = sum over s of a[h, t, s] * (value[s] Wv[h] + bv[h])
    a[h, t, :] = softmax over s of (query[t] Wq[h] + bq[h]) . (key[s] Wk[h] + bk[h]) / sqrt(key_dim)
    y[t] = concat(head[1, t], ..., head[num_heads, t]) Wo + bo

    `keras.layers.MultiHeadAttention`, for ragged rows too. There every row gives what it would
    give alone: it attends to the row of the same index, whose length may differ from its own. The
    projections run on the steps that are there; for the products rows are put together with rows
    of like length, so that little is padded. A query that nothing may answer, because its row of
    keys is empty or `attention_mask` leaves none, gets zeros for its heads.

    Args:
        num_heads: int, the number of heads.
        key_dim: int, the size of a head's queries and keys.
        **kwargs: as in `keras.layers.MultiHeadAttention`: `value_dim`, `dropout`, `use_bias`,
            `output_shape`, `attention_axes`, initializers, regularizers, constraints, `seed`, ...

    Call arguments:
        query: (batch, time, features), dense or ragged.
        value: (batch, other time, features), dense or ragged.
        key: of as many steps as `value`; None for `value`.
        query_mask, value_mask, key_mask: bool (batch, time), False for the steps of a dense input
            that do not count; Keras hands them on.
        attention_mask: bool (batch, time, other time), or (batch, heads, time, other time): which
            steps may see which. Beside a ragged input as long as the longest rows.
        return_attention_scores: bool, whether to give a too; of dense inputs only.
        use_causal_mask: bool, whether a step sees only those up to its own place.

    Input shape:
        (batch, time, features), each dense or ragged.

    Output shape:
        (batch, time, features of the query, or `output_shape`), ragged where the query is.

    Raises:
        ValueError: ragged rows with `return_attention_scores`, `attention_axes`, or an
            `activity_regularizer`, or other than three axes.

    Example:
        >>> import keras_blocks as kb, tensorflow as tf
        >>> rows = tf.ragged.constant([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0]]], inner_shape=(2,))
        >>> kb.MultiHeadAttention(num_heads=2, key_dim=4)(rows, rows).row_lengths().numpy().tolist()
        [2, 1]

    Reference:
        Vaswani et al., "Attention is all you need" (2017).
    """

    def __init__(self, num_heads: int, key_dim: int, **kwargs: Any):
        super().__init__(num_heads, key_dim, **kwargs)

    def call(
        self,
        query: Any,
        value: Any,
        key: Any = None,
        query_mask: Any = None,
        value_mask: Any = None,
        key_mask: Any = None,
        attention_mask: Any = None,
        return_attention_scores: bool = False,
        training: bool | None = None,
        use_causal_mask: bool = False,
    ) -> Any:
        """Attends."""
        if not holds_ragged((query, value, key)):
            return super().call(
                query,
                value,
                key=key,
                query_mask=query_mask,
                value_mask=value_mask,
                key_mask=key_mask,
                attention_mask=attention_mask,
                return_attention_scores=return_attention_scores,
                training=training,
                use_causal_mask=use_causal_mask,
            )
        key = value if key is None else key
        self._check_ragged_call(query, value, key, return_attention_scores)
        for mask in (value_mask, key_mask):
            if mask is not None:
                mask = tf.cast(mask, tf.bool)[:, tf.newaxis, :]
                attention_mask = _intersect(attention_mask, mask)
        rows, values, keys = (x if is_ragged(x) else from_dense(x) for x in (query, value, key))
        _check_rows(rows, values, keys if key is not value else values)

        result = self._attend_rows(rows, values, keys, attention_mask, training, use_causal_mask)
        if is_ragged(query):
            return rows.with_values(result)
        inner = result.shape[1:]
        result = tf.reshape(result, tf.concat([tf.shape(query)[:2], tf.shape(result)[1:]], axis=0))
        return tf.ensure_shape(result, [*query.shape[:2], *inner])

    def compute_output_spec(  # type: ignore[override]
        self,
        query: Any,
        value: Any,
        key: Any = None,
        return_attention_scores: bool = False,
        **options: Any,
    ) -> Any:
        """The symbolic output, ragged where the query is."""
        if holds_ragged((query, value, key)):
            self._check_ragged_call(query, value, key, return_attention_scores)
            # XLA has no ragged tensors; Keras looks here when a model is compiled.
            self.supports_jit = False
            shapes = [x.shape for x in (query, value, key) if x is not None]
            shape = self.compute_output_shape(*shapes)
            return keras.KerasTensor(shape, self.compute_dtype, ragged=is_ragged(query))
        options["return_attention_scores"] = return_attention_scores
        return keras.layers.MultiHeadAttention.compute_output_spec(
            self, query, value, key, **options
        )

    def _attend_rows(
        self,
        query: tf.RaggedTensor,
        value: tf.RaggedTensor,
        key: tf.RaggedTensor,
        attention_mask: Any,
        training: bool | None,
        use_causal_mask: bool,
    ) -> tf.Tensor:
        """The values of the result, with the rows of the query."""
        q = map_values(lambda x: _on_steps(self._query_dense, x), query)
        k = _on_steps(self._key_dense, key.values)
        v = _on_steps(self._value_dense, value.values)
        answers = value.with_values(tf.concat([k, v], axis=-1))
        sizes = [k.shape[-1], v.shape[-1]]

        def on_dense(q: tf.Tensor, answers: tf.Tensor) -> tf.Tensor:
            return _flatten_steps(on_padded(q, answers, None, attention_mask))

        def on_group(
            rows: tf.Tensor, q: tf.Tensor, _: tf.Tensor, answers: tf.Tensor, kept: tf.Tensor
        ) -> tf.Tensor:
            seen = _take_rows(attention_mask, rows, tf.shape(q)[1], tf.shape(answers)[1])
            return on_padded(q, answers, kept, seen)

        def on_padded(q: tf.Tensor, answers: tf.Tensor, kept: Any, seen: Any) -> tf.Tensor:
            k, v = tf.split(answers, sizes, axis=-1)
            mask = self._compute_attention_mask(
                q, v, value_mask=kept, use_causal_mask=use_causal_mask
            )
            mask = _intersect(seen, mask)
            return _silence(self._compute_attention(q, k, v, mask, training)[0], mask)

        heads = call_by_rows([q, answers], on_dense, lambda *x: compute_in_groups(x, on_group))
        if self._use_gate:
            heads = heads * _on_steps(self._gate_dense, query.values)
        return _on_steps(self._output_dense, heads)

    def _check_ragged_call(self, query: Any, value: Any, key: Any, scores: bool) -> None:
        ranks = [len(x.shape) for x in (query, value, key) if x is not None]
        if set(ranks) != {3}:
            raise ValueError(
                "MultiHeadAttention: beside a ragged input each must be (batch, time, features). "
                f"Received inputs of {', '.join(map(str, ranks))} axes."
            )
        if key is not None and is_ragged(value) != is_ragged(key):
            raise ValueError(
                "MultiHeadAttention: value and key must both be ragged, or both dense: they are "
                "the same steps. keras_blocks.ToRagged makes rows of a dense tensor and its mask."
            )
        if scores:
            raise ValueError(
                "MultiHeadAttention: the scores of ragged rows form no tensor, so "
                "return_attention_scores=True needs dense inputs. keras_blocks.ToDense pads the "
                "rows and hands their mask on."
            )
        if self._activity_regularizer is not None:
            raise ValueError(
                "MultiHeadAttention: activity_regularizer needs dense inputs, and one is ragged. "
                "Leave it out, or regularize the weights."
            )


def _on_steps(layer: keras.layers.Layer, values: tf.Tensor) -> tf.Tensor:
    """A projection, which takes batches of rows, on the steps of all rows as one."""
    return tf.squeeze(layer(tf.expand_dims(values, 0)), 0)


def _check_rows(query: tf.RaggedTensor, value: tf.RaggedTensor, key: tf.RaggedTensor) -> None:
    tf.debugging.assert_equal(
        query.nrows(),
        value.nrows(),
        message="MultiHeadAttention: query and value must have as many rows, the batch.",
    )
    if key is not value:
        tf.debugging.assert_equal(
            key.row_splits,
            value.row_splits,
            message="MultiHeadAttention: the rows of key and value must have the same lengths.",
        )


def _intersect(seen: Any, mask: Any) -> Any:
    """What both masks let see: the first of 3 or 4 axes, the second of 3; either may be None."""
    if seen is None or mask is None:
        return mask if seen is None else tf.cast(seen, tf.bool)
    seen = tf.cast(seen, tf.bool)
    return seen & (mask if seen.shape.rank == 3 else mask[:, tf.newaxis])


def _take_rows(mask: Any, rows: tf.Tensor, time: tf.Tensor, other_time: tf.Tensor) -> Any:
    """The attention mask of some rows, cut to their steps; an axis of size 1 stays."""
    if mask is None:
        return None
    mask = tf.convert_to_tensor(mask)
    if mask.shape[0] != 1:
        mask = tf.gather(mask, rows)
    return mask[..., :time, :other_time]


def _silence(heads: tf.Tensor, mask: Any) -> tf.Tensor:
    """The heads (batch, time, heads, size), 0 where the mask lets a query see nothing."""
    if mask is None:
        return heads
    answered = tf.reduce_any(mask, axis=-1)
    if answered.shape.rank == 2:
        answered = answered[:, :, tf.newaxis]
    else:
        answered = tf.transpose(answered, [0, 2, 1])
    return tf.where(answered[..., tf.newaxis], heads, tf.zeros([], heads.dtype))


def _flatten_steps(heads: tf.Tensor) -> tf.Tensor:
    """(batch, time, ...) -> (steps, ...)."""
    return tf.reshape(heads, [-1, *heads.shape[2:]])
