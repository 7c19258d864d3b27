"""Every layer of `keras.layers` on ragged rows, and the page that says how each takes them.

The page is docs/ragged_layers.md. `python tests/mechanisms/test_ragged_layers.py` writes it anew.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import keras_blocks as kb
from keras_blocks.mechanisms.ragged_calls import block_for

PAGE = Path(__file__).parents[2] / "docs" / "ragged_layers.md"
OTHER_ORDER = 1e-4  # float32, sums in another order; images have values up to 255
LENGTHS = [3, 0, 5, 4]
VECTOR, SEQUENCE, IMAGE, VOLUME = (4,), (5, 4), (5, 6, 3), (5, 6, 4, 2)

NOT_TRIED = {
    "Layer": "the base of all",
    "Wrapper": "the base of wrappers",
    "InputLayer": "it has no input",
    "GRUCell": "a cell",
    "LSTMCell": "a cell",
    "SimpleRNNCell": "a cell",
    "StackedRNNCells": "a cell",
    "JaxLayer": "needs JAX",
    "FlaxLayer": "needs JAX",
    "TorchModuleWrapper": "needs PyTorch",
    "TFSMLayer": "a SavedModel of any kind",
    "STFTSpectrogram": "needs SciPy",
    "StringLookup": "takes strings: before the model",
    "TextVectorization": "takes strings: before the model",
    "MaxNumBoundingBoxes": "takes bounding boxes",
    "HashedCrossing": "takes pairs of single features",
    "CutMix": "mixes images of a batch, in training only",
    "MixUp": "mixes images of a batch, in training only",
    "Pipeline": "its layers one after another",
}
PAIRS = ("Add", "Average", "Concatenate", "Dot", "Maximum", "Minimum", "Multiply", "Subtract")
ATTENTION = ("AdditiveAttention", "Attention", "GroupQueryAttention", "MultiHeadAttention")

SHAPES = {
    **dict.fromkeys(
        ("CategoryEncoding", "Embedding", "Hashing", "IntegerLookup", "ReversibleEmbedding"), ()
    ),
    **dict.fromkeys(
        ("Bidirectional", "Flatten", "GroupNormalization", "Masking", "Permute", "TimeDistributed"),
        SEQUENCE,
    ),
    "ConvLSTM1D": (5, 6, 3),
    "ConvLSTM2D": (5, 4, 4, 3),
    "ConvLSTM3D": (5, 4, 4, 3, 2),
    "MelSpectrogram": (64,),
}
"""The shape of one example, where the name and the module of the layer do not say."""

ARGUMENTS: dict[str, Callable[[], tuple[Any, ...]]] = {
    "Activation": lambda: ("tanh",),
    "Bidirectional": lambda: (layers.LSTM(3, return_sequences=True),),
    "CategoryEncoding": lambda: (9, "one_hot"),
    "CenterCrop": lambda: (2, 3),
    "ContrastLimitedAdaptiveHistogramEqualization": lambda: ((0, 255), 4.0, (2, 2)),
    "Dense": lambda: (3,),
    "Discretization": lambda: ([0.0, 1.0],),
    "Dot": lambda: (-1,),
    "EinsumDense": lambda: ("...a,ab->...b", (3,)),
    "Embedding": lambda: (9, 3),
    "GroupNormalization": lambda: (2,),
    "GroupQueryAttention": lambda: (2, 2, 1),
    "Hashing": lambda: (9,),
    "IntegerLookup": lambda: (None, 1, None, -1, [1, 2, 5]),
    "Lambda": lambda: (lambda x: 2 * x,),
    "MelSpectrogram": lambda: (32, 16),
    "MultiHeadAttention": lambda: (2, 3),
    "Normalization": lambda: (-1, 0.5, 2.0),
    "Permute": lambda: ((2, 1),),
    "RNN": lambda: (layers.GRUCell(3), True),
    "RandomCrop": lambda: (2, 3),
    "RandomPosterization": lambda: (4,),
    "RandomTranslation": lambda: (0.1, 0.1),
    "RepeatVector": lambda: (3,),
    "Rescaling": lambda: (2.0,),
    "Reshape": lambda: ((2, 2),),
    "Resizing": lambda: (3, 4),
    "ReversibleEmbedding": lambda: (9, 3),
    "SpectralNormalization": lambda: (layers.Dense(3),),
    "TimeDistributed": lambda: (layers.Dense(3),),
    **dict.fromkeys(
        ("AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise"), lambda: (0.3,)
    ),
    **dict.fromkeys(("GRU", "LSTM", "SimpleRNN"), lambda: (3,)),
    **dict.fromkeys(
        (
            *("RandomBrightness", "RandomColorDegeneration", "RandomContrast", "RandomHue"),
            *("RandomRotation", "RandomSaturation", "RandomSharpness", "RandomZoom"),
        ),
        lambda: (0.3,),
    ),
}
"""What a layer is made with, where its family does not say."""

FAMILIES = {
    **{"ConvLSTM": (2, 2), "Adaptive": (2,), "Depthwise": (2,), "Conv": (3, 2)},
    **{"Global": (), "Pooling": (2,), "SpatialDropout": (0.3,)},
}
"""The first that a layer's name holds counts."""


def stock_layers() -> dict[str, type]:
    """The layers by name; of several names for one the class's own."""
    found: dict[type, str] = {}
    for name in dir(layers):
        thing = getattr(layers, name)
        is_layer = isinstance(thing, type) and issubclass(thing, layers.Layer)
        if is_layer and (thing not in found or name == thing.__name__):
            found[thing] = name
    return {name: thing for thing, name in sorted(found.items(), key=lambda item: item[1])}


def example(name: str, layer_class: type) -> tuple[tuple[int, ...], Any]:
    """The shape of one example, and a layer."""
    ranks = {"1D": SEQUENCE, "2D": IMAGE, "3D": VOLUME}
    rooms = {"image_preprocessing": IMAGE, "rnn": SEQUENCE, "attention": SEQUENCE}
    found = [shape for rank, shape in ranks.items() if rank in name]
    found += [shape for room, shape in rooms.items() if f".{room}." in layer_class.__module__]
    arguments = ARGUMENTS.get(name)
    if arguments is not None:
        made = layer_class(*arguments())
    else:
        of_family = (given for family, given in FAMILIES.items() if family in name)
        made = layer_class(*next(of_family, ()))
    return SHAPES.get(name, (*found, VECTOR)[0]), made


def ragged(shape: tuple[int, ...], seed: int) -> tf.RaggedTensor:
    generator = np.random.default_rng(seed)
    size = (sum(LENGTHS), *shape)
    drawn = generator.normal(size=size) if shape else generator.integers(0, 9, size)
    return tf.RaggedTensor.from_row_lengths(drawn.astype("float32" if shape else "int32"), LENGTHS)


def call(layer: Any, name: str, x: list[Any]) -> Any:
    asks = layer._call_has_training_arg or isinstance(layer, (kb.Map, kb.Stacked))
    options = {"training": False} if asks else {}
    if name in ("GroupQueryAttention", "MultiHeadAttention"):
        return layer(x[0], x[1], **options)
    return layer(x if len(x) > 1 else x[0], **options)


def verdict(run: Callable[[], Any], expected: Callable[[int], Any]) -> str:
    """Whether each row that has a step gives what it should."""
    try:
        outputs = run()
        for row, length in enumerate(LENGTHS):
            if length:
                given, wanted = outputs[row], expected(row)
                given = given.to_tensor() if isinstance(given, tf.RaggedTensor) else given
                given, wanted = np.asarray(given), np.asarray(wanted)
                if given.shape != wanted.shape or not np.allclose(
                    given, wanted, rtol=OTHER_ORDER, atol=OTHER_ORDER
                ):
                    return "**wrong**"
    except Exception:  # every way in which a layer may fail
        return "no"
    return "yes"


def verdicts(name: str, layer_class: type) -> list[str]:
    """By itself, through Map, through Stacked."""
    shape, layer = example(name, layer_class)
    count = 2 if name in (*PAIRS, *ATTENTION) else 1
    # The first axis of an example is the ragged one, unless an example is a vector or a number.
    of_rows = shape[1:] if len(shape) > 1 else shape
    rows = [ragged(of_rows, seed) for seed in range(count)]
    steps = [ragged(shape, seed) for seed in range(count)]

    def alone(row: int) -> Any:
        return call(layer, name, [x[row][tf.newaxis] for x in rows])[0]

    def step_alone(row: int) -> Any:
        inner = mapped.layer
        return np.stack([call(inner, name, [step[tf.newaxis]])[0] for step in steps[0][row]])

    with contextlib.suppress(Exception):  # such as RepeatVector, which takes no sequences
        alone(0)  # a layer is built for what dense rows are
    by_itself = verdict(lambda: call(layer, name, rows), alone)
    if count > 1:
        return [by_itself, "", ""]
    mapped = kb.Map(example(name, layer_class)[1])
    return [
        by_itself,
        verdict(lambda: call(mapped, name, steps), step_alone),
        verdict(lambda: call(kb.Stacked([layer]), name, rows), alone),
    ]


def page() -> str:
    lines = [
        "# Stock layers on ragged rows",
        "",
        "What each layer of `keras.layers` does with a ragged tensor (batch, time, ...), found by",
        "running it: beside each row that it is given in a ragged batch stands what it gives for",
        'that row alone. "By itself" is `layer(rows)`, "Map" is `keras_blocks.Map(layer)` with an',
        'example of the layer at every step, "Stacked" is `keras_blocks.Stacked([layer])`.',
        "**wrong** is a layer that takes the rows and gives something else, without an error.",
        "Where none of them is right, `keras_blocks.ToDense()` makes the rows dense, with a mask.",
        "",
        "`MelSpectrogram` scales by the loudest step of the whole batch.",
        "",
        "Stock layers on ragged rows fail with errors of TensorFlow and Keras (object of type",
        "RaggedTensor has no len(), Cannot index into an inner ragged dimension), and a symbol",
        "behind `x + y` or a stock layer has forgotten that it is ragged. Neither can be changed",
        "without patching Keras; `keras_blocks.Stacked` refuses such a layer with the remedy.",
        "",
        "This page is written by `python tests/mechanisms/test_ragged_layers.py`.",
        "",
        "| layer | by itself | Map | Stacked | the block for it |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, layer_class in stock_layers().items():
        block = block_for(name)
        block = f"`{block.removeprefix('keras_blocks.')}`" if block else ""
        if name in NOT_TRIED:
            cells = [f"({NOT_TRIED[name]})", "", ""]
        else:
            cells = verdicts(name, layer_class)
        lines.append(f"| `{name}` | {' | '.join(cells)} | {block} |")
    return "\n".join(lines) + "\n"


def test_the_page_says_what_every_stock_layer_does_with_ragged_rows():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert page() == PAGE.read_text(), f"run: python {Path(__file__).name}"


if __name__ == "__main__":
    keras.utils.set_random_seed(7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        PAGE.write_text(page())
