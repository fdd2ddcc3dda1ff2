"""Work outside of the window's thread: the engine, child processes, decoding, tasks."""
