"""Step "environment": what is installed, what the card is, and what the engine chooses on it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import warnings
from importlib import metadata
from typing import Any

import torch

from benchmarks.gpu.shapes import attention_shapes
from benchmarks.gpu.work import Run
from benchmarks.machine import describe_machine

_PACKAGES = (
    "torch", "bitsandbytes", "transformers", "tokenizers", "safetensors", "numpy", "pillow",
    "psutil", "msgspec", "platformdirs", "filelock", "packaging", "pytest", "xformers",
)  # fmt: skip
_VARIABLES = (
    "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "TORCH_CUDNN_SDPA_DEPRIORITIZED",
    "CUBLAS_WORKSPACE_CONFIG", "CUDA_MODULE_LOADING", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS",
)  # fmt: skip


def measure(run: Run) -> None:
    """Measure nothing: describe."""
    run.attempt("machine", lambda: {**describe_machine(), "platform": platform.platform()})
    run.put(packages={name: version(name) for name in _PACKAGES})
    run.put(variables={name: os.environ[name] for name in _VARIABLES if name in os.environ})
    run.put(nvidia_smi=nvidia_smi())
    run.attempt("card", card)
    run.attempt("kernels", kernels)
    run.attempt("attention", lambda: attention(tiny=run.rehearse))
    run.attempt("doctor", lambda: doctor(rehearse=run.rehearse))


def version(package: str) -> str:
    """Return the version of an installed package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def nvidia_smi() -> str:
    """Return the driver's own description of the cards, one line each; "" without it."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    fields = "name,driver_version,memory.total,pcie.link.gen.max,pcie.link.width.max,power.limit"
    command = [program, f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return (done.stdout or done.stderr).strip()


def card() -> dict[str, Any]:
    """Return what torch says about the first GPU."""
    from cogvlm2_lite.devices import choose_compute

    properties = torch.cuda.get_device_properties(0)
    free, total = torch.cuda.mem_get_info(0)
    gpu = choose_compute("cuda:0", "auto").gpus[0]
    return {
        "name": properties.name,
        "maker": gpu.maker,
        "architecture": gpu.architecture,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "total_bytes": total,
        "free_bytes": free,
        "torch_cuda": str(torch.version.cuda),
        "cudnn": torch.backends.cudnn.version() if torch.backends.cudnn.is_available() else None,
        "architectures": torch.cuda.get_arch_list(),
    }


def kernels() -> dict[str, Any]:
    """Return which kernels are used, and why."""
    from cogvlm2_lite.devices import choose_compute
    from cogvlm2_lite.model.full_attention import choose_full_attention
    from cogvlm2_lite.model.token_attention import choose_token_attention
    from cogvlm2_lite.weights.kernels.choice import choose_kernels

    compute = choose_compute("cuda", "auto")
    chosen = choose_kernels(compute.device, compute.dtype)
    full = choose_full_attention(compute.device, compute.dtype)
    token = choose_token_attention(compute.device, compute.dtype, 128)
    return {
        "dtype": str(compute.dtype),
        "dtype_reason": str(compute.reason),
        "name": chosen.name,
        "reason": chosen.reason,
        "full_attention": f"{full.name}: {full.reason}",
        "token_attention": f"{token.name}: {token.reason}",
    }


def attention(*, tiny: bool) -> dict[str, Any]:
    """Return for each shape what torch's attention may use, and what its operation chooses."""
    dtype = torch.bfloat16 if torch.cuda.is_bf16_supported(False) else torch.float16
    found = {}
    for name, shape in attention_shapes(tiny=tiny).items():
        q, k, v = shape.tensors("cuda", dtype)
        mask = shape.mask("cuda")
        found[name] = {
            "shape": shape.describe(),
            "chosen": _chosen(q, k, v, mask, shape.causal),
            "possible": _possible(q, k, v, mask, shape.causal),
        }
    return found


def _chosen(q: Any, k: Any, v: Any, mask: Any, causal: bool) -> str:
    """Return the name of the implementation that torch prefers."""
    names = {0: "math", 1: "flash", 2: "efficient", 3: "cudnn", 4: "overrideable"}
    try:
        number = torch._fused_sdp_choice(q, k, v, mask, 0.0, causal)
    except (AttributeError, RuntimeError, NotImplementedError) as error:
        return str(error).partition("\n")[0]
    return names.get(int(number), str(number))


def _possible(q: Any, k: Any, v: Any, mask: Any, causal: bool) -> dict[str, Any]:
    """Return which implementations run at all."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.functional import scaled_dot_product_attention

    found: dict[str, Any] = {}
    for name, backend in (
        ("flash", SDPBackend.FLASH_ATTENTION),
        ("efficient", SDPBackend.EFFICIENT_ATTENTION),
        ("cudnn", SDPBackend.CUDNN_ATTENTION),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                with sdpa_kernel(backend):
                    scaled_dot_product_attention(q, k, v, mask, is_causal=causal)
                found[name] = True
            except RuntimeError as error:
                found[name] = str(error).partition("\n")[0][:120]
    return found


def doctor(*, rehearse: bool) -> str:
    """Return the report of `cogvlm2-lite doctor`; a rehearsal leaves its slow parts out."""
    from cogvlm2_lite.backends.registry import accelerators
    from cogvlm2_lite.doctor import report

    if rehearse:
        return "\n".join(f"{name}: {text}" for name, text in report.gpus(accelerators()).items())
    return report.gather().text()
