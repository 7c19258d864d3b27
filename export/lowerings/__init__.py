"""The native ONNX forms of layers, one file a family; importing this registers them all."""

from keras_blocks.export.lowerings import affine as affine
from keras_blocks.export.lowerings import division as division
from keras_blocks.export.lowerings import elementwise as elementwise
from keras_blocks.export.lowerings import erf as erf
from keras_blocks.export.lowerings import recurrent as recurrent
from keras_blocks.export.lowerings import scatter as scatter
from keras_blocks.export.lowerings import time_distributed as time_distributed
from keras_blocks.export.lowerings.registry import converters, converts, lowered_call, lowers

__all__ = ["converters", "converts", "erf", "lowered_call", "lowers", "recurrent"]
