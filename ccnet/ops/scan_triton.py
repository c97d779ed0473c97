"""The scan (``ccnet.ops.scan`` holds the equations) as Triton kernels for float32 on CUDA: n = 1, 2 or 4, T ≤ 64.

One program runs one stream of one image over a block of pixels, all T steps, with the memory in registers. The heads
are an axis of every tile and the gate is a sum over them; nothing is hoisted, since W_x x_t costs less than the bytes
of a second tensor.

The backward pass cannot get the memory from u (atanh of a saturated tanh is lost) and cannot step it backwards (s_t
needs m_{t-1}). The forward kernel runs again and writes m_t, in a launch of its own so that no program reads what it
has just written; s_t costs one sigmoid and is computed again from m_{t-1}. A stream writes its own gradient of x, and
each program its own sums for weight and bias. torch adds them up: no atomics, so that training repeats exactly.

The roofline, in units of X = 4·B·n·T·H·W bytes, one pass over x. Forward: x read and u written, 5 X, where the four
streams find x in cache; 8 X where they do not. Backward: x and the four streams of u's gradient read, x's gradient
written, 6 X. These kernels move more, by design: x and m_t written (5 X); x, m_t, u's gradient and the streams'
gradients of x (13 X); the sum of these (5 X): 23 X. Of the 17 X above the roofline, 9 X are the price of m_t in memory
and 8 X that of a sum without atomics; the two buffers hold 8 X bytes.

Shape legend: as in ``ccnet.ops.scan``; N heads, P pixels of a block.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

STREAMS = tl.constexpr(4)
BLOCK, WARPS = 128, 4  # one pixel a thread, so that a sum over heads needs no other thread; not tuned


def triton_scan(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Compute ``ccnet.ops.scan.scan`` without a gradient.

    Args:
        x: (B, n, T, H, W), float32 on CUDA.
        weight: (2, n, 2n).
        bias: (2, n).

    Returns:
        (B, 4, n, T, H, W), float32.
    """
    return _run_forward(x.contiguous(), weight.contiguous(), bias.contiguous(), memories=False)


def triton_scan_backward(grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, weight and bias; grad, (B, 4, n, T, H, W) float32, is the result's."""
    grad, x, weight, bias = grad.contiguous(), x.contiguous(), weight.contiguous(), bias.contiguous()
    batch, heads, bands, height, width = x.shape
    grid = _grid(x)
    memories = _run_forward(x, weight, bias, memories=True)
    streams_x = torch.empty_like(grad)
    # (B, direction, lead, block, n, [W_m | W_x | b])
    partial = x.new_empty((batch, 2, 2, grid[0], heads, 2 * heads + 1))
    with torch.cuda.device_of(x):
        backward_kernel[grid](
            x, weight, bias, memories, grad, streams_x, partial, bands, height * width, heads, BLOCK, num_warps=WARPS
        )
    # Many sums of like size: float64 keeps what the blocks know
    sums = partial.sum((0, 2, 3), dtype=torch.float64).to(x.dtype)
    return streams_x.sum(1), sums[..., :-1].contiguous(), sums[..., -1].contiguous()


def _run_forward(x: Tensor, weight: Tensor, bias: Tensor, *, memories: bool) -> Tensor:
    """Return the streams' u or, in the same layout, their m_t."""
    batch, heads, bands, height, width = x.shape
    out = x.new_empty((batch, STREAMS.value, heads, bands, height, width))
    with torch.cuda.device_of(x):  # Triton launches on the current device, which need not be x's
        forward_kernel[_grid(x)](
            x, weight, bias, out, bands, height * width, heads, memories, BLOCK, num_warps=WARPS
        )  # fmt: skip
    return out


def _grid(x: Tensor) -> tuple[int, int]:
    """Return the number of blocks of pixels, and of streams in all images."""
    return triton.cdiv(x.shape[3] * x.shape[4], BLOCK), x.shape[0] * STREAMS.value


@triton.jit
def forward_kernel(
    x: tl.tensor,  # (B, n, T, plane)
    weight: tl.tensor,
    bias: tl.tensor,
    out: tl.tensor,  # (B, 4, n, T, plane)
    bands: int,
    plane: int,
    N: tl.constexpr,
    MEMORIES: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Run one stream of one image over a block of pixels; store u, or m_t where MEMORIES is set."""
    image = tl.program_id(1) // STREAMS
    direction, lead = tl.program_id(1) % STREAMS // 2, tl.program_id(1) % 2
    w_m, w_x, b = _gate(weight, bias, direction, N)
    x_at, inside = _tile(x, image, bands, plane, N, BLOCK)
    out_at, _ = _tile(out, tl.program_id(1), bands, plane, N, BLOCK)
    m = tl.zeros((N, BLOCK), tl.float32)
    for step in range(bands):
        read = inside & (step + lead < bands)  # the slot ahead of the last band is zero
        x_t = tl.load(x_at + _offset(step + lead, direction, bands, plane), mask=read, other=0.0)
        s_t = tl.sigmoid(_product(w_m, m) + _product(w_x, x_t) + b)  # Eq. 5
        m = x_t + s_t * (m - x_t)  # Eq. 6
        result = m if MEMORIES else _tanh(m) + x_t
        tl.store(out_at + _offset(step, direction, bands, plane), result, mask=inside)


@triton.jit
def backward_kernel(
    x: tl.tensor,  # (B, n, T, plane)
    weight: tl.tensor,
    bias: tl.tensor,
    memories: tl.tensor,  # (B, 4, n, T, plane), like grad and streams_x
    grad: tl.tensor,
    streams_x: tl.tensor,
    partial: tl.tensor,  # (B, 4, block, n, 2n + 1)
    bands: int,
    plane: int,
    N: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Run one stream backwards over a block of pixels; store its gradient of x and its sums for weight and bias."""
    stream = tl.program_id(1)
    direction, lead = stream % STREAMS // 2, stream % 2
    w_m, w_x, b = _gate(weight, bias, direction, N)
    x_at, inside = _tile(x, stream // STREAMS, bands, plane, N, BLOCK)
    m_at, _ = _tile(memories, stream, bands, plane, N, BLOCK)
    grad_at, _ = _tile(grad, stream, bands, plane, N, BLOCK)
    g_x_at, _ = _tile(streams_x, stream, bands, plane, N, BLOCK)

    m = tl.load(m_at + _offset(bands - 1, direction, bands, plane), mask=inside, other=0.0)
    g_m = tl.zeros((N, BLOCK), tl.float32)
    # A pixel's sums over the steps, added up over the block once: pixels beyond the plane are zero and add nothing
    g_w_m, g_w_x = tl.zeros((N, N, BLOCK), tl.float32), tl.zeros((N, N, BLOCK), tl.float32)
    g_b = tl.zeros((N, BLOCK), tl.float32)
    for back in range(bands):
        step = bands - 1 - back
        ahead = step + lead
        x_t = tl.load(x_at + _offset(ahead, direction, bands, plane), mask=inside & (ahead < bands), other=0.0)
        g_u = tl.load(grad_at + _offset(step, direction, bands, plane), mask=inside, other=0.0)
        previous = tl.load(m_at + _offset(step - 1, direction, bands, plane), mask=inside & (step > 0), other=0.0)
        s_t = tl.sigmoid(_product(w_m, previous) + _product(w_x, x_t) + b)
        tanh = _tanh(m)
        g_m += g_u * (1 - tanh * tanh)
        g_gate = g_m * (previous - x_t) * s_t * (1 - s_t)
        g_x = g_u + g_m * (1 - s_t) + _transposed_product(w_x, g_gate)
        # The band that a leading stream never reads gets the zero of the step that reads no band
        tl.store(
            g_x_at + _offset(ahead % bands, direction, bands, plane), tl.where(ahead < bands, g_x, 0.0), mask=inside
        )
        g_m = g_m * s_t + _transposed_product(w_m, g_gate)
        g_w_m += g_gate[:, None, :] * previous[None, :, :]
        g_w_x += g_gate[:, None, :] * x_t[None, :, :]
        g_b += g_gate
        m = previous

    _store_sums(partial, tl.sum(g_w_m, axis=2), tl.sum(g_w_x, axis=2), tl.sum(g_b, axis=1), N)


@triton.jit
def _store_sums(partial: tl.tensor, g_w_m: tl.tensor, g_w_x: tl.tensor, g_b: tl.tensor, N: tl.constexpr) -> None:
    """Store this program's gradients of W_m (N, N), W_x (N, N) and b (N) in its own rows of ``partial``."""
    o, i = tl.arange(0, N), tl.arange(0, N)[None, :]
    program = (tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)).to(tl.int64)
    row = partial + (program * N + o) * (2 * N + 1)
    tl.store(row[:, None] + i, g_w_m)
    tl.store(row[:, None] + N + i, g_w_x)
    tl.store(row + 2 * N, g_b)


@triton.jit
def _gate(
    weight: tl.tensor, bias: tl.tensor, direction: tl.tensor, N: tl.constexpr
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Load W_m (N, N), W_x (N, N) and b (N, 1) of a direction."""
    o, i = tl.arange(0, N)[:, None], tl.arange(0, N)[None, :]
    at = weight + direction * 2 * N * N + o * 2 * N + i
    return tl.load(at), tl.load(at + N), tl.load(bias + direction * N + o)


@triton.jit
def _tile(
    base: tl.tensor, index: tl.tensor, bands: int, plane: int, N: tl.constexpr, BLOCK: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:
    """Return the addresses (N, P) of this program's pixels at band 0 of image ``index``, and a mask of real pixels."""
    heads = index.to(tl.int64) * N + tl.arange(0, N)[:, None]  # 64 bits: u has more than 2³¹ numbers on large frames
    pixels = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[None, :]
    return base + heads * bands * plane + pixels, pixels < plane


@triton.jit
def _offset(position: tl.tensor, direction: tl.tensor, bands: int, plane: int) -> tl.tensor:
    """Return the distance from band 0 to the band at a position in the direction's order."""
    band = tl.where(direction == 1, bands - 1 - position, position)
    return band.to(tl.int64) * plane


@triton.jit
def _product(w: tl.tensor, v: tl.tensor) -> tl.tensor:
    """Multiply w v at every pixel: (N, N), (N, P) → (N, P)."""
    return tl.sum(w[:, :, None] * v[None, :, :], axis=1)


@triton.jit
def _transposed_product(w: tl.tensor, v: tl.tensor) -> tl.tensor:
    """Multiply wᵀ v at every pixel: (N, N), (N, P) → (N, P)."""
    return tl.sum(w[:, :, None] * v[:, None, :], axis=0)


@triton.jit
def _tanh(m: tl.tensor) -> tl.tensor:
    # Triton's own comes from CUDA's library, which its interpreter lacks
    return 2 * tl.sigmoid(2 * m) - 1
