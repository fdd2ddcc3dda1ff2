"""Where the built application begins (tools/build_app.py): the command line, or one of its parts.

The program starts its engine, its picture reader and its commands with `sys.executable -P -m
MODULE`. In a built application that executable is this file, so it does what Python would do.
"""

from __future__ import annotations

import multiprocessing
import runpy
import sys

MODULE_RUN = ["-P", "-m"]

if __name__ == "__main__":
    multiprocessing.freeze_support()  # torch's child processes run here, without a window
    if sys.argv[1:3] == MODULE_RUN:
        module, *arguments = sys.argv[3:]
        sys.argv = [module, *arguments]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        from cogvlm2_lite.cli.main import main

        sys.exit(main())
