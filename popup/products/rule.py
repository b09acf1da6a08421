"""Which layers compute sparsely: by shape, density, number type, device and kernels, never by a clock.

So a run computes the same on every machine with the same kernels, and its bytes stay a function of its config. The bounds were
measured on an Intel Xeon (AVX-512 and AMX; both threads share one core; other programs beside) unless another is named, in
float32 and on one thread: forward, the input's and the edges' gradient with k = 0.5, against the same three products of a dense
weight, alternately, the activations laid out as torch does. tests/products/crossover.py measures them anew.

Linear, numba's kernels, p = 0.2: at batch 128 0.8 of the dense time for 512 x 512, 0.57 for 1024 x 1024, 0.6 for 784 to 2048,
0.54 for 2048 x 2048, 0.48 for 4096 x 4096; at batch 512 0.8. At batch 32 1.6 for 512 x 512, 1.1 for 1024 x 1024, 1.0 from
2048 on, where a dense weight that is masked anew each step takes 1.5. At p = 0.3 batches of 512 lose, and so do layers with a
side below 256. Torch's kernels take as long as the dense ones at p = 0.2, and 0.9 at p = 0.1.

On an AMD EPYC that shows AVX2 and no AVX-512, whose dense products are slower, 300 x 784 takes 0.47 and 0.58 of the dense time at
batch 128 and 64, 256 x 512 takes 0.51, and a whole step of LeNet-300-100 0.9 of the dense network's (batch 128; 1.6 at batch 60,
where a masked weight has 1.5).

What follows a sparse layer gets activations that lie as sparse products want them, and 10 outputs are too few for a dense
product to be fast: from 2048 to 10, batch 128, the sparse ones take 0.1, 0.14 and 0.2 of the dense time at p = 0.2, 0.5 and 1
(MKL on an AMD EPYC without AVX-512), from 512 to 10 a half; from 2048 to 100 a half at p = 0.2, and at p = 1
they lose, as do those from 1024 to 32.

Convolutions, on that EPYC, images in channels last: they must be laid out by channels and back, which costs the same at any
density. With 3 x 3 taps, batch 128, p = 0.2 and 0.05: 0.89 and 0.57 of the dense time for 16 channels of 32 x 32, 0.69 and 0.34
for 32 of 16 x 16, 0.52 and 0.29 for 64 of 32 x 32, 0.55 and 0.25 for 128, 0.53 and 0.21 for 256, 0.60 and 0.22 for 512 of 7 x 7;
at p = 0.3 0.7 to 1.3. With a stride of 2 1.03 and 0.85 from 16 to 32 channels, 0.83 and 0.49 from 32 to 64, 0.70 and 0.45 from 64
to 128. One tap: 1.9 and 1.6 for 64 channels, 0.78 and 0.49 for 256, 0.57 and 0.27 from 512 to 2048. Batches of 32 take 0.7 to 1.0
of that. A small network on images of 8 x 8 takes 1.16 of the dense step at p = 0.2 and batch 32, 0.98 at 128; at p = 0.05 0.80
and 0.57. In bfloat16 by AMX a dense convolution takes 0.15 to 0.5 of its time in float32, so sparse ones do not win there before
p = 0.01.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Bounds:
    """Below which density, and from how many entries of the weight on, linear layers are sparse."""

    density: float
    entries: int


LINEAR = {  # by kernels, and by the number type of the dense product that is the other choice
    ("numba", torch.float32): Bounds(0.22, 200_000), ("torch", torch.float32): Bounds(0.11, 1 << 20),
    ("numba", torch.bfloat16): Bounds(0.11, 1 << 20), ("torch", torch.bfloat16): Bounds(0.055, 1 << 20)}
NARROWEST = 256  # with fewer inputs or outputs, laying out the other side's activations costs more than the product
FEW_OUTPUTS = 16  # a layer of so few that a sparse one hands its output to is sparse at any density, see above
CONVOLUTION = ((0.22, 128), (0.11, 70))  # densities below which convolutions of at least so many entries a channel are sparse:
# that many products they make for each number of their input and output, which has to be laid out


def pays(shape: tuple[int, ...], edges: float, against: torch.dtype, device: torch.device, kernels: str, groups: int = 1,
         handed: bool = False) -> bool:
    """Whether a layer with a weight of that shape and so many edges is faster with sparse products, in float32, than densely.

    `against` is the number type that it would compute densely in (under autocast that of autocast); `kernels` is the name of the
    kernels at hand; `handed`: whether the input of a linear layer lies unit by unit already, as a sparse layer gives it.
    """
    if device.type != "cpu" or groups != 1 or 0 in shape:
        return False
    entries = torch.Size(shape).numel()
    if len(shape) == 2:
        bounds = LINEAR.get((kernels, against))
        if bounds is None:
            return False
        if handed and kernels == "numba" and against == torch.float32:
            return edges <= bounds.density * entries or shape[0] <= FEW_OUTPUTS
        return edges <= bounds.density * entries and entries >= bounds.entries and min(shape) >= NARROWEST
    return len(shape) == 4 and kernels == "numba" and against == torch.float32 and any(
        edges <= density * entries and entries >= reuse * (shape[0] + shape[1]) for density, reuse in CONVOLUTION)
