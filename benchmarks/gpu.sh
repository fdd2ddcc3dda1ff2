#!/bin/sh
# Measure everything that needs a GPU, in one command, with random weights (nothing is downloaded):
#
#     sh benchmarks/gpu.sh            an NVIDIA GPU; about 14 GB of RAM
#     sh benchmarks/gpu.sh cpu        a rehearsal on the CPU with one layer of each kind
#
# Caps of 24, 16, 12, 8 and 6 GiB (as far as the card has them), each in its own process: speed of
# the phases, planned and measured peaks, bits of the logits, recovery when memory runs out.
# Writes benchmarks/results/gpu.json and docs/performance.md.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
if [ -x .venv/bin/python ] && [ -z "${PYTHON:-}" ]; then
    python=.venv/bin/python
fi
export OMP_WAIT_POLICY=PASSIVE
export PYTORCH_CUDA_ALLOC_CONF="${PYTORCH_CUDA_ALLOC_CONF:-expandable_segments:True}"

if [ "${1:-cuda}" = cpu ]; then
    "$python" -m benchmarks.gpu --device cpu --layers 1 --caps 2.6,1.9 --tokens 4
else
    "$python" -m pytest -q -m cuda tests/core
    caps=$("$python" - <<'PYTHON'
import torch
total = torch.cuda.get_device_properties(0).total_memory / 1024**3
print(",".join(str(cap) for cap in (24, 16, 12, 8, 6) if cap <= total) or total)
PYTHON
    )
    "$python" -m benchmarks.gpu --device cuda --caps "$caps"
fi
"$python" tools/write_performance.py
