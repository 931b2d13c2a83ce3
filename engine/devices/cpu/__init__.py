"""Run on the CPU: OpenVINO and the kernels of this machine's cores."""
