"""Arithmetic on stored weights: plain torch as the reference, native code where it is faster."""
