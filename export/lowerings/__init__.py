"""The native ONNX forms of layers, one file a family; importing this registers them all."""

from keras_blocks.export.lowerings import affine as affine
from keras_blocks.export.lowerings import category_encoding as category_encoding
from keras_blocks.export.lowerings import center_crop as center_crop
from keras_blocks.export.lowerings import conv_transpose as conv_transpose
from keras_blocks.export.lowerings import convolution as convolution
from keras_blocks.export.lowerings import counting as counting
from keras_blocks.export.lowerings import division as division
from keras_blocks.export.lowerings import einsum as einsum
from keras_blocks.export.lowerings import elementwise as elementwise
from keras_blocks.export.lowerings import equalization as equalization
from keras_blocks.export.lowerings import erf as erf
from keras_blocks.export.lowerings import finiteness as finiteness
from keras_blocks.export.lowerings import norms as norms
from keras_blocks.export.lowerings import one_hot as one_hot
from keras_blocks.export.lowerings import pooling as pooling
from keras_blocks.export.lowerings import random_crop as random_crop
from keras_blocks.export.lowerings import random_draws as random_draws
from keras_blocks.export.lowerings import recurrent as recurrent
from keras_blocks.export.lowerings import reshaping as reshaping
from keras_blocks.export.lowerings import resizing as resizing
from keras_blocks.export.lowerings import scatter as scatter
from keras_blocks.export.lowerings import short_pooling as short_pooling
from keras_blocks.export.lowerings import sign_bits as sign_bits
from keras_blocks.export.lowerings import sorted_places as sorted_places
from keras_blocks.export.lowerings import spectrum as spectrum
from keras_blocks.export.lowerings import time_distributed as time_distributed
from keras_blocks.export.lowerings import trees as trees
from keras_blocks.export.lowerings import up_sampling as up_sampling
from keras_blocks.export.lowerings.registry import converters, converts, lowered_call, lowers

__all__ = ["converters", "converts", "erf", "lowered_call", "lowers", "recurrent"]
