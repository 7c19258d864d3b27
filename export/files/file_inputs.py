"""The inputs of an ONNX file: what they must be, and a user's data brought into that form."""

from __future__ import annotations
