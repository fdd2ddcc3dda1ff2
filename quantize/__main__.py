"""`python -m quantize` is `cogvlm2-lite quantize`."""

import sys

from quantize.command import main

sys.exit(main(None))
