"""Run networks and kernels: one protocol, a room per kind of device."""
