#!/bin/sh
# Measure everything that needs a GPU, in one command of about ten minutes. Nothing is downloaded:
#
#     sh benchmarks/gpu.sh              on a computer with an NVIDIA GPU
#     sh benchmarks/gpu.sh --rehearse   on an emulated GPU, to see that everything works
#     sh benchmarks/gpu.sh --help       other options
#
# PYTHON names the interpreter; by default that of .venv, else python3. Results are saved in $OUT or
# benchmarks/results/gpu after every step. tools/pack_gpu.py packs what another machine needs.
cd "$(dirname "$0")/.." || exit 2
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python3
    if [ -x .venv/bin/python ]; then
        PYTHON=.venv/bin/python
    fi
fi
exec "$PYTHON" -m benchmarks.gpu.run "$@"
