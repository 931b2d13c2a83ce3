"""The CPU: OpenVINO and the kernels of this machine's cores."""
