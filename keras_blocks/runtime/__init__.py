"""onnxruntime: files loaded, run and described."""
