"""Serving of exported models under onnxruntime, without TensorFlow."""
