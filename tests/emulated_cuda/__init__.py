"""An emulated CUDA device: real numbers, computed on the CPU, under CUDA's rules.

It is no model of speed. It checks what goes wrong on a GPU and never on a CPU:

- tensors of different devices must not meet,
- work on a stream runs later than the call, in any order that the program has not excluded,
- memory that is freed may be overwritten as soon as its stream goes on,
- a graph repeats addresses and not tensors, and nothing may wait for the device in a capture,
- memory ends.

`emulated_cuda()` (install.py) replaces what the product uses of `torch.cuda`. `machine.py` has
streams, memory and graphs; `tensors.py` has tensors that say they are on a GPU.

With `shapes_only` large tensors have no memory and no numbers (shapes.py). So the released model
runs here, too (model_19b.py): `trace.py` records its allocations, kernels, copies and waits.
"""
