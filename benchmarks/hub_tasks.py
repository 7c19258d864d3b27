# ruff: noqa: C408 (they are arguments)
"""The tasks of KerasHub on its backbones, and what those that generate do."""

from __future__ import annotations

from typing import Any

import hub_images as hub_images
import hub_text as hub_text
import keras
import keras_hub.models as hub
from hub_cases import CASES, Build

from keras_blocks.export import decoding_step, generation_loop

_CLASSES = dict(num_classes=3)
# What heads want beside their backbone; the others want nothing.
_HEAD_ARGUMENTS: dict[str, dict[str, Any]] = dict.fromkeys(
    ("TextClassifier", "ProteinClassifier", "ImageClassifier", "ImageSegmenter"), _CLASSES
)
_HEAD_ARGUMENTS["DepthEstimator"] = dict(depth_estimation_type="relative")
_HEAD_ARGUMENTS["ObjectDetector"] = dict(**_CLASSES, bounding_box_format="yxyx")
# They want more than a backbone, or do what their backbone does.
_OF_OTHER_PARTS = (
    "BLIP2Seq2SeqLM", "Gemma4AssistantCausalLM", "FluxTextToImage", "StableDiffusion3ImageToImage",
    "StableDiffusion3Inpaint", "StableDiffusion3TextToImage",
)  # fmt: skip


def heads() -> dict[str, Build]:
    """The tasks of KerasHub by name, each on the first backbone that it is for."""
    found: dict[str, Build] = {}
    for name in sorted(dir(hub)):
        task = getattr(hub, name)
        backbone = getattr(getattr(task, "backbone_cls", None), "__name__", "")
        built = next((key for key in CASES if key.split()[0] == backbone), None)
        of_its_own = isinstance(task, type) and issubclass(task, hub.Task)
        if built is not None and of_its_own and task.__name__ not in _OF_OTHER_PARTS:
            found[task.__name__] = _head(task, built)
    return found


def _head(task: type, backbone: str) -> Build:
    kind = next((kind for kind in _HEAD_ARGUMENTS if task.__name__.endswith(kind)), "")

    def build() -> keras.Model:
        given = _HEAD_ARGUMENTS.get(kind, {})
        return task(backbone=CASES[backbone](), preprocessor=None, **given)

    return build


# Of inputs that must fit together, or whose length the code asks for in Python: their sizes.
_TEXT = {"token_ids": (None, 6), "padding_mask": (None, 6)}
_SIZES: dict[str, dict[str, tuple[int | None, ...]]] = {
    "Gemma3Backbone images": {
        "token_ids": (None, 8), "padding_mask": (None, 8), "images": (None, 1, 16, 16, 3),
        "vision_indices": (None, 4), "vision_mask": (None, 8),
    },
    "Gemma4Backbone images": {
        "token_ids": (None, 8), "padding_mask": (None, 8), "position_ids": (None, 8),
        "pixel_values": (None, 1, 16, 48), "pixel_position_ids": (None, 1, 16, 2),
        "vision_indices": (None, 4), "vision_mask": (None, 8),
    },
    "Qwen3_5Backbone": _TEXT, "Qwen3_5MoeBackbone": _TEXT, "RWKV7Backbone": _TEXT,
    "Qwen3_5CausalLM": _TEXT, "Qwen3_5MoeCausalLM": _TEXT, "RWKV7CausalLM": _TEXT,
}  # fmt: skip
_SIZES["Gemma4CausalLM"] = _SIZES["Gemma4Backbone images"]
# These have a cache of their own, or one that their step cannot do without an image's part.
_OTHER_CACHES = ("BLIP2", "Gemma3", "Gemma4", "PARSeq", "PaliGemma", "Qwen3_5", "RWKV7")


def signature_of_case(name: str, model: keras.Model) -> Any:
    """The `input_signature` that a case is exported with, or None."""
    sizes = _SIZES.get(name)
    if sizes is None:
        return None
    return [
        {
            key: keras.InputSpec(shape=sizes[key], dtype=given.dtype)
            for key, given in model.input.items()
        }
    ]


def all_cases() -> dict[str, Build]:
    """The backbones, the tasks, and the steps and loops of those that generate, by name."""
    tasks = heads()
    generating = [
        name for name in tasks if name.endswith("CausalLM") and not name.startswith(_OTHER_CACHES)
    ]
    steps = {f"{name} step": _step(tasks[name]) for name in generating}
    loops = {f"{name} loop": _loop(tasks[name]) for name in generating}
    return {**CASES, **tasks, **steps, **loops}


def _step(task: Build) -> Build:
    return lambda: decoding_step(task())


def _loop(task: Build) -> Build:
    def build() -> keras.Model:
        model = task()
        model.compile(sampler="greedy")
        return generation_loop(model, [2])

    return build
