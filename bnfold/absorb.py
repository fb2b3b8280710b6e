"""How the weights of linear operators take an affine in: pure NumPy, no graph, no framework.

Every function answers with float64 arrays that broadcast against the weight, or with the change of
the bias; the caller multiplies, adds, and rounds once.

Output side: ``y' = s * y + t`` per output channel m, with weight W and bias b::

    Conv            W[M, C/g, k...]   W[m] * s[m]                          b = s*b + t
    ConvTranspose   W[C, M/g, k...]   W[c, j] * s[q*(M/g) + j], c in q     b = s*b + t
    matrix          W[..., K, N]      column n * s[n]                      b = s*b + t

Input side: ``x = s * x' + t`` per input channel c; the old bias is b::

    Conv            W[m, c] * s[c of m's group]      b[m] += sum_{c,k} W[m, c, k] * t[c]
    ConvTranspose   W[c] * s[c]                      b[m] += sum_c W[c, m, 0] * t[c]   (kernel 1)
    matrix          row k * s[k]                     b[n] += sum_k t[k] * W[k, n]

Source: the ONNX operator specification of Conv, ConvTranspose, Gemm and MatMul.
"""

from __future__ import annotations

import numpy as np

from bnfold.affine import Float64, contracted

__all__ = [
    "conv_input_scale",
    "conv_input_shift",
    "conv_output_scale",
    "conv_transpose_input_scale",
    "conv_transpose_input_shift",
    "conv_transpose_output_scale",
    "matrix_input_shift",
]


def conv_output_scale(s: Float64, rank: int) -> Float64:
    """Scale of a Conv weight (M, C/g, k...) for a scale of its output channels.

    Args:
        s: (M,).
        rank: Rank of the weight.

    Returns:
        (M, 1, 1...).
    """
    return s.reshape(-1, *([1] * (rank - 1)))


def conv_input_scale(s: Float64, out_channels: int, groups: int, rank: int) -> Float64:
    """Scale of a Conv weight (M, C/g, k...) for a scale of its input channels.

    Args:
        s: (C,).
        out_channels: M.
        groups: g; output channel m belongs to group m // (M/g).
        rank: Rank of the weight.

    Returns:
        (M, C/g, 1...), or (1, C, 1...) for one group.
    """
    return _rows_of_groups(s, out_channels, groups, rank)


def conv_input_shift(weight: Float64, t: Float64, groups: int) -> Float64:
    """What a constant t per input channel adds to every output position of a Conv without padding.

    Args:
        weight: (M, C/g, k...), before any scaling of its input channels.
        t: (C,).
        groups: g.

    Returns:
        (M,): sum over c and k of W[m, c, k] * t[c].
    """
    taps = weight.reshape(*weight.shape[:2], -1).sum(axis=2)
    grouped = taps.reshape(groups, -1, weight.shape[1])
    return contracted("gmc,gc->gm", grouped, t.reshape(groups, -1)).reshape(-1)


def conv_transpose_output_scale(s: Float64, in_channels: int, groups: int, rank: int) -> Float64:
    """Scale of a ConvTranspose weight (C, M/g, k...) for a scale of its output channels.

    Args:
        s: (M,).
        in_channels: C; input channel c belongs to group c // (C/g).
        groups: g.
        rank: Rank of the weight.

    Returns:
        (C, M/g, 1...), or (1, M, 1...) for one group.
    """
    return _rows_of_groups(s, in_channels, groups, rank)


def conv_transpose_input_scale(s: Float64, rank: int) -> Float64:
    """Scale of a ConvTranspose weight (C, M/g, k...) for a scale of its input channels (C,)."""
    return s.reshape(-1, *([1] * (rank - 1)))


def conv_transpose_input_shift(weight: Float64, t: Float64, groups: int) -> Float64:
    """What a constant t per input channel adds to the output of a ConvTranspose of kernel 1.

    Args:
        weight: (C, M/g, 1...).
        t: (C,).
        groups: g.

    Returns:
        (M,): sum over c of W[c, m] * t[c].
    """
    grouped = weight.reshape(groups, -1, weight.shape[1])
    return contracted("gcm,gc->gm", grouped, t.reshape(groups, -1)).reshape(-1)


def matrix_input_shift(weight: Float64, t: Float64, axis: int) -> Float64:
    """What a constant t on the summed axis adds to a product of matrices.

    Args:
        weight: The constant matrix.
        t: One value for each index of that axis.
        axis: The summed axis of `weight`.

    Returns:
        One value for each index of the other axis.
    """
    return contracted("nc,c->n" if axis else "cn,c->n", weight, t)


def _rows_of_groups(s: Float64, rows: int, groups: int, rank: int) -> Float64:
    """Give every row of a weight the part of ``s`` that belongs to its group."""
    parts = s.reshape(groups, -1)
    if groups > 1:
        parts = np.repeat(parts, rows // groups, axis=0)
    return parts.reshape(*parts.shape, *([1] * (rank - 2)))
