"""Our own CUDA kernels: CUDA C++ that NVRTC, a part of torch, compiles on the user's machine.

    primitives.cuh   what the kernels need of a GPU
    product.cu       products of 1 to 8 rows with a stored matrix
    attention.cu     rotation, writing to the cache, and attention of one token
    rows.cu          residual sum with norm

No GPU has run them yet, so they are used only if asked for. tests/emulated_cuda/own_kernels runs
the same text on the CPU, and limits the registers and instructions of the compiled code.
"""
