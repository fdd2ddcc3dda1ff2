"""Runs the command `cogvlm2-lite` for `python -m cogvlm2_lite`."""

from __future__ import annotations

from cogvlm2_lite.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
