"""An NVIDIA GPU: TensorRT and the CUDA kernels."""
