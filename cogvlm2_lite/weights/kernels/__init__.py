"""Arithmetic on stored weights: plain torch as the reference, native code where it is faster.

`interface.py` says what a kernel is. `choice.py` makes the lists of kernels for a device.
"""
