"""What the networks and kernels run on: one protocol, a room a kind of device."""
