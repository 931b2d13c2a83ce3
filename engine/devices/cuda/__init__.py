"""Run on an NVIDIA GPU: TensorRT and the CUDA kernels."""
