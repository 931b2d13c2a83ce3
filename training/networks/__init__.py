"""The networks as PyTorch modules, and as ONNX."""
