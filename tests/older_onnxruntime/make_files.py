"""Exports a file of every kind, with inputs and what Keras gives for them, for other runtimes.

    python tests/older_onnxruntime/make_files.py FOLDER

`FOLDER/NAME.onnx` stands beside `NAME.npz` with the arrays `0/in/x`, `0/out/y`, `1/in/x`, ...;
`run_files.py` runs them in an environment that has nothing but onnxruntime.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS)]

import keras  # noqa: E402
import numpy as np  # noqa: E402
from cases import CASES, Case  # noqa: E402
from onnx_runs import flat, images, random_weights, sequences  # noqa: E402
from opset_models import encoder, image_model, masked, spectrum  # noqa: E402

from keras_blocks.contract import Contract  # noqa: E402
from keras_blocks.export import export_onnx, optimize, quantize, to_float16  # noqa: E402
from keras_blocks.runtime.graph_facts import graph_facts  # noqa: E402
from keras_blocks.runtime.releases import Release, first_release  # noqa: E402
from keras_blocks.serving import Model  # noqa: E402

layers = keras.layers
LENGTHS = [[3, 1, 4], [5], [int(n) for n in np.random.default_rng(0).integers(1, 30, 40)]]
FLOAT32 = 2e-5  # the same sums in another order
HALF = 1e-2  # float16 keeps 11 bits
EIGHT_BITS = 5e-2  # a sum that is rounded the other way is one step of 1/127 off


def main(folder: Path) -> None:
    """Writes the files and the list of them."""
    folder.mkdir(parents=True, exist_ok=True)
    tolerances: dict[str, float] = {}
    for case in CASES:
        save(folder, case.name, random_weights(case.model()), samples_of(case))
        tolerances[case.name] = FLOAT32
    for name, (make, inputs) in models().items():
        save(folder, name, random_weights(make()), [inputs])
        tolerances[name] = FLOAT32
    keras.config.set_dtype_policy("mixed_float16")
    save(folder, "half_dense", random_weights(dense()), [sequences(1, 4, 64)[0]])
    keras.config.set_dtype_policy("float32")
    tolerances["half_dense"] = HALF
    for name, change, tolerance in CHANGES:
        source, target = folder / f"{name}.onnx", f"{name}_{change.__name__}"
        change(source, folder / f"{target}.onnx", verbose=False)
        keep_expected(folder, name, target)
        tolerances[target] = tolerance
    since = {name: loaded_since(folder / f"{name}.onnx") for name in tolerances}
    files = {name: [since[name], tolerance] for name, tolerance in tolerances.items()}
    (folder / "files.json").write_text(json.dumps(files))
    print(f"{len(tolerances)} files in {folder}")


def loaded_since(path: Path) -> Release | None:
    facts = graph_facts(path)
    return first_release(facts.opset, facts.ir_version)


def dense() -> keras.Model:
    x = keras.Input((64,), name="x")
    return keras.Model(x, layers.Dense(8)(layers.Dense(64, activation="relu")(x)))


def recurrent() -> keras.Model:
    x = keras.Input((None, 32), name="x")
    return keras.Model(x, layers.Dense(4)(layers.LSTM(32)(x)))


def convolutional() -> keras.Model:
    x = keras.Input((16, 16, 8), name="x")
    h = layers.Conv2D(16, 3, padding="same", activation="relu")(x)
    return keras.Model(x, layers.Dense(4)(layers.GlobalAveragePooling2D()(h)))


def models() -> dict[str, tuple[Callable[[], keras.Model], Any]]:
    ids = np.array([[1, 0, 3, 4, 0], [0, 2, 5, 1, 1]], "int32")
    return {
        "encoder": (lambda: encoder()[0], encoder()[1]),
        "images": (lambda: image_model()[0], image_model()[1]),
        "spectrum": (lambda: spectrum()[0], spectrum()[1]),
        "masked": (masked, ids),
        "gelu": (gelu, sequences(2, 5)),
        "dense": (dense, sequences(1, 4, 64)[0]),
        "recurrent": (recurrent, sequences(3, 7, 32)),
        "convolutional": (convolutional, images(2, 16, 16, 8)),
    }


def gelu() -> keras.Model:
    """A block of a transformer without what came after opset 20."""
    x = keras.Input((None, 6), name="x")
    h = layers.LayerNormalization()(x)
    h = x + layers.MultiHeadAttention(2, 3)(h, h)
    return keras.Model(x, layers.Dense(6)(layers.Dense(12, activation="gelu")(h)))


CHANGES: tuple[tuple[str, Callable[..., Any], float], ...] = tuple(
    (name, change, tolerance)
    for name in ("dense", "recurrent", "convolutional")
    for change, tolerance in ((quantize, EIGHT_BITS), (to_float16, HALF), (optimize, FLOAT32))
)


def samples_of(case: Case) -> list[Any]:
    return [case.sample([max(n, case.shortest) for n in lengths]) for lengths in LENGTHS]


def save(folder: Path, name: str, model: keras.Model, samples: list[Any]) -> None:
    """Exports without a proof, which is of another runtime: what Keras gives is the proof here."""
    result = export_onnx(model, folder / f"{name}.onnx", verify=False, verbose=False)
    arrays: dict[str, np.ndarray] = {}
    for number, inputs in enumerate(samples):
        outputs = model(inputs, training=False)
        arrays |= named(result.contract, number, inputs, outputs)
    np.savez(folder / f"{name}.npz", **arrays)


def named(contract: Contract, number: int, inputs: Any, outputs: Any) -> dict[str, np.ndarray]:
    sides = (("in", contract.flat_inputs(), inputs), ("out", contract.flat_outputs(), outputs))
    return {
        f"{number}/{side}/{tensor.name}": value
        for side, tensors, values in sides
        for tensor, value in zip(tensors, flat(values), strict=True)
    }


def keep_expected(folder: Path, name: str, changed: str) -> None:
    """What a changed file gives here is what it is to give elsewhere."""
    with np.load(folder / f"{name}.npz") as arrays:
        found = dict(arrays)
    model = Model.load(folder / f"{changed}.onnx")
    inputs = {key.split("/", 2)[2]: value for key, value in found.items() if "/in/" in key}
    for output, value in model.predict(inputs).items():
        found[f"0/out/{output}"] = value
    np.savez(folder / f"{changed}.npz", **found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
