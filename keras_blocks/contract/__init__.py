"""A model's inputs and outputs, as they are stored in the metadata of the ONNX file."""

from keras_blocks.contract.spec import (
    CHANGES_METADATA_KEY,
    FORMAT_VERSION,
    METADATA_KEY,
    PROCESSORS,
    PROOF_METADATA_KEY,
    ROW_SPLITS_DTYPE,
    Contract,
    Dim,
    FlatTensor,
    TensorSpec,
)

__all__ = [
    "CHANGES_METADATA_KEY",
    "FORMAT_VERSION",
    "METADATA_KEY",
    "PROCESSORS",
    "PROOF_METADATA_KEY",
    "ROW_SPLITS_DTYPE",
    "Contract",
    "Dim",
    "FlatTensor",
    "TensorSpec",
]
