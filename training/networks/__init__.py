"""Define the networks as PyTorch modules, and as ONNX."""
