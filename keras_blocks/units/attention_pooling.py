"""Attention pooling: the mean of a row's or tree's vectors, with weights that are learned."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_blocks.ragged import AcceptsRagged, is_ragged, map_values
from keras_blocks.rows.reductions import call_by_rows, softmax_rows, sum_rows


@keras.saving.register_keras_serializable("keras_blocks")
class AttentionPooling(AcceptsRagged, keras.layers.Layer):
    """A weighted mean of the vectors of a row or a tree; a softmax of learned scores weighs them.

    u[t] = activation(x[t] W + b)
    a[t] = exp(u[t] . c) / sum over s of exp(u[s] . c)
    y = sum over t of a[t] * x[t]

    W, b and the context vector c are learned. Without `units` the score is linear: u[t] = x[t].
    Masked steps have no weight. Where there is no step, as in an empty row, the result is 0.

    Args:
        units: int, the size of u; None for a score that is linear in x.
        activation: the nonlinearity of u: a name, a function, or None. Only with `units`.
        use_bias: bool, whether to add b. Only with `units`.
        kernel_initializer: how W starts.
        bias_initializer: how b starts.
        context_initializer: how c starts.
        kernel_regularizer, bias_regularizer, context_regularizer: losses of the weights.
        kernel_constraint, bias_constraint, context_constraint: limits of the weights.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: the vectors.
        mask: bool (batch, time), False for the steps that do not count.
        return_attention_scores: bool, whether to give the weights a too: (batch, time), ragged
            where the input is.

    Input shape:
        (batch, time, features), dense or ragged, such as the nodes of trees.

    Output shape:
        (batch, features), dense.

    Raises:
        ValueError: `units` is no positive int, or the input is no sequence of vectors of a known
            size.

    Example:
        >>> import keras_blocks as kb, tensorflow as tf
        >>> rows = tf.ragged.constant([[[1.0, 2.0], [3.0, 4.0]], []], inner_shape=(2,))
        >>> kb.AttentionPooling(8)(rows).shape
        TensorShape([2, 2])

    Reference:
        Yang et al., "Hierarchical attention networks for document classification" (2016).
    """

    ragged_output = False

    def __init__(
        self,
        units: int | None = None,
        activation: Any = "tanh",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        context_initializer: Any = "glorot_uniform",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        context_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        context_constraint: Any = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if units is not None and (not isinstance(units, int) or units <= 0):
            raise ValueError(
                f"AttentionPooling: units must be a positive int, or None for a linear score. "
                f"Received: units={units!r}."
            )
        self.units = units
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.context_initializer = keras.initializers.get(context_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.context_regularizer = keras.regularizers.get(context_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        self.bias_constraint = keras.constraints.get(bias_constraint)
        self.context_constraint = keras.constraints.get(context_constraint)
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        """Makes `kernel` (features, units), `bias` (units) and `context` (units, 1)."""
        if len(input_shape) != 3 or input_shape[-1] is None:
            raise ValueError(
                "AttentionPooling: the input must be (batch, time, features), with a known number "
                f"of features. Received an input of shape {tuple(input_shape)}."
            )
        features = input_shape[-1]
        self.kernel = self.bias = None
        if self.units is not None:
            self.kernel = self._weight("kernel", (features, self.units))
            if self.use_bias:
                self.bias = self._weight("bias", (self.units,))
        self.context = self._weight("context", (self.units or features, 1))

    def call(self, inputs: Any, mask: Any = None, return_attention_scores: bool = False) -> Any:
        """Weighs the steps and adds them up."""
        if is_ragged(inputs):
            scores = map_values(self._scores, inputs)
            pooled = call_by_rows([scores, inputs], _pool_equal_rows, _pool_rows)
            if return_attention_scores:
                weights = map_values(lambda a: tf.squeeze(a, 1), softmax_rows(scores))
        else:
            weights = self._dense_weights(self._scores(inputs), mask)
            pooled = _weighted_sum(weights, inputs)
            weights = keras.ops.squeeze(weights, -1)
        return (pooled, weights) if return_attention_scores else pooled

    def compute_mask(self, inputs: Any, mask: Any = None) -> None:
        """None: no steps are left."""
        return None

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """(batch, features)."""
        return input_shape[0], input_shape[-1]

    def compute_output_spec(
        self, inputs: Any, mask: Any = None, return_attention_scores: bool = False
    ) -> Any:
        """The symbolic output, with the weights if they are asked for."""
        pooled = super().compute_output_spec(inputs)
        if not return_attention_scores:
            return pooled
        ragged = is_ragged(inputs)
        return pooled, keras.KerasTensor(inputs.shape[:2], self.compute_dtype, ragged=ragged)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        config = {
            "units": self.units,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
        }
        for weight in ("kernel", "bias", "context"):
            for kind in ("initializer", "regularizer", "constraint"):
                serialize = getattr(keras, f"{kind}s").serialize
                config[f"{weight}_{kind}"] = serialize(getattr(self, f"{weight}_{kind}"))
        return {**super().get_config(), **config}

    def _weight(self, name: str, shape: tuple[int, ...]) -> keras.Variable:
        return self.add_weight(
            name=name,
            shape=shape,
            initializer=getattr(self, f"{name}_initializer"),
            regularizer=getattr(self, f"{name}_regularizer"),
            constraint=getattr(self, f"{name}_constraint"),
        )

    def _scores(self, x: Any) -> Any:
        """(..., features) -> (..., 1)."""
        if self.kernel is not None:
            x = keras.ops.matmul(x, self.kernel)
            x = self.activation(x if self.bias is None else keras.ops.add(x, self.bias))
        return keras.ops.matmul(x, self.context)

    def _dense_weights(self, scores: Any, mask: Any) -> Any:
        """The softmax along time of (batch, time, 1); 0 for what is masked."""
        if mask is None:
            return keras.ops.softmax(scores, axis=1)
        kept = keras.ops.expand_dims(keras.ops.cast(mask, "bool"), -1)
        lowest = keras.ops.cast(tf.as_dtype(scores.dtype).min, scores.dtype)
        weights = keras.ops.softmax(keras.ops.where(kept, scores, lowest), axis=1)
        # Of a row without a step all would have the same.
        return keras.ops.where(kept, weights, keras.ops.zeros_like(weights))


def _weighted_sum(weights: Any, x: Any) -> Any:
    """(batch, time, 1) and (batch, time, features) -> (batch, features)."""
    product = keras.ops.matmul(keras.ops.transpose(weights, (0, 2, 1)), x)
    return keras.ops.squeeze(product, 1)


def _pool_equal_rows(scores: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    return _weighted_sum(tf.nn.softmax(scores, axis=1), x)


def _pool_rows(scores: tf.RaggedTensor, x: tf.RaggedTensor) -> tf.Tensor:
    return sum_rows(x.with_values(softmax_rows(scores).values * x.values))
