"""The window, the only package that uses Qt. It depends on the core.

Nothing here imports torch or the quantizer: the engine, the picture decoder and the conversion run
in separate processes.
"""
