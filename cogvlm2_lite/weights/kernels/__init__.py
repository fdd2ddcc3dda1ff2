"""Arithmetic on stored weights: torch as the reference, native code where it is faster.

`interface.py` defines a kernel. `choice.py` chooses the kernels for a device.
"""
