"""Work of the window that runs elsewhere: the engine, child programs, decoding, threads."""
