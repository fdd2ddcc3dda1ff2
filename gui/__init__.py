"""The window: the only place with Qt. It stands on the core and starts everything heavy elsewhere.

Nothing here imports torch or the quantizer: the engine, the picture decoder and the conversion run
in processes of their own.
"""
