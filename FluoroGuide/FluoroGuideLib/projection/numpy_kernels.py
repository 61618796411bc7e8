"""The kernels of :mod:`numba_kernels` in plain numpy: slow, obvious, the reference of the tests.

They are also what runs where numba is not installed.  Same names, arguments and results.
"""

from __future__ import annotations

import numpy as np


def _slopes(source, first, column_step, row_step, shape):
    """Index-space direction from source to each pixel: (main component, slope of a, slope of b), float64 (rows, cols)."""
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    d = first + cols[..., None] * column_step + rows[..., None] * row_step - source
    return d[..., 0], d[..., 1] / d[..., 0], d[..., 2] / d[..., 0]


def _samples(packed, k, a, b):
    """Values and in-slice gradients of slice k at index positions a, b (zero outside the padding)."""
    inside = (a >= 1) & (a <= packed.shape[1] - 2 - 1e-3) & (b >= 1) & (b <= packed.shape[2] - 2 - 1e-3)
    a, b = np.where(inside, a, 1.0), np.where(inside, b, 1.0)
    ia, ib = a.astype(np.int64), b.astype(np.int64)
    fa, fb = a - ia, b - ib
    word = packed[k][ia, ib]
    p0, p1, q0, q1 = ((word >> s & 255).astype(float) for s in (0, 8, 16, 24))
    x0, x1 = p0 + fb * (p1 - p0), q0 + fb * (q1 - q0)
    return (x0 + fa * (x1 - x0)) * inside, (x1 - x0) * inside, ((p1 - p0) * (1 - fa) + (q1 - q0) * fa) * inside


def joseph(packed, slabs, scale, source, first, column_step, row_step, lengths, mask, out):
    """Line integrals of one view: the sum of one bilinear sample per slice, times the slice spacing along the ray.

    ``slabs`` only tell the compiled kernel where all is zero.
    """
    dk, da, db = _slopes(source, first, column_step, row_step, out.shape)
    on = mask > 0
    dk, da, db = dk[on], da[on], db[on]
    total = np.zeros(dk.shape)
    for k in range(packed.shape[0]):
        total += _samples(packed, k, source[1] + (k - source[0]) * da, source[2] + (k - source[0]) * db)[0]
    out[...] = 0
    out[on] = total * lengths[on] / np.abs(dk) * scale


def joseph_jacobian(packed, slabs, scale, source, first, column_step, row_step, lengths, mask, rotation, world, out, jacobian):
    """Line integrals and pose derivatives: the motion of every sample, dotted with the gradient there, summed."""
    dk, da, db = _slopes(source, first, column_step, row_step, out.shape)
    on = mask > 0
    dk, da, db = dk[on], da[on], db[on]
    rows, cols = np.nonzero(on)
    ray = world[1] + cols[:, None] * world[2] + rows[:, None] * world[3]  # source to pixel, mm
    weight = lengths[on] / np.abs(dk) * scale
    total, derivative = np.zeros(dk.shape), np.zeros((6, len(dk)))
    for k in range(packed.shape[0]):
        value, ga, gb = _samples(packed, k, source[1] + (k - source[0]) * da, source[2] + (k - source[0]) * db)
        total += value
        lever = world[0] + ((k - source[0]) / dk)[:, None] * ray  # sample minus centre of rotation, mm
        for p in range(6):
            axis = np.eye(3)[p % 3]
            move = -((np.cross(axis, lever) if p < 3 else np.broadcast_to(axis, lever.shape)) @ rotation.T)
            derivative[p] += ga * (move[:, 1] - move[:, 0] * da) + gb * (move[:, 2] - move[:, 0] * db)
    derivative *= weight
    for p in range(3):  # the slice spacing along the ray changes when the volume turns
        derivative[p] += total * weight / dk * (np.cross(np.eye(3)[p], ray) @ rotation[0])
    out[...], jacobian[...] = 0, 0
    out[on] = total * weight
    jacobian[:, on] = derivative


def box_sum(image, radius, out):
    """Sum over a (2 radius + 1)^2 window, zero outside, by differences of cumulative sums."""
    padded = np.pad(image.astype(float), ((radius + 1, radius), (radius + 1, radius))).cumsum(0).cumsum(1)
    w = 2 * radius + 1
    out[...] = padded[w:, w:] - padded[:-w, w:] - padded[w:, :-w] + padded[:-w, :-w]


def local_normalize(image, mask, inverse_count, radius, floor_factor, out, inverse_std, mean):
    """(image - local mean) / sqrt(local variance + floor^2) inside a masked box window; returns the floor."""
    count = max(float(mask.sum()), 1.0)
    centred = (image - (image * mask).sum() / count).astype(float)
    average, square = np.empty(image.shape), np.empty(image.shape)
    box_sum(centred * mask, radius, average)
    box_sum(centred**2 * mask, radius, square)
    mean[...] = average * inverse_count
    variance = np.maximum(square * inverse_count - (average * inverse_count) ** 2, 0)
    floor2 = floor_factor**2 * (variance * mask).sum() / count + 1e-18
    inverse_std[...] = 1 / np.sqrt(variance + floor2)
    out[...] = (centred - mean) * inverse_std * mask
    return float(np.sqrt(floor2))


def local_normalize_jacobian(jacobian, mask, inverse_count, radius, normalized, inverse_std, mean):
    """Push d image / d xi (6, rows, cols) through the local normalisation, in place."""
    slope, product = np.empty(mask.shape), np.empty(mask.shape)
    values = normalized / inverse_std + mean
    for image in jacobian:
        box_sum(image * mask, radius, slope)
        box_sum(image * mask * values, radius, product)
        average = slope * inverse_count
        covariance = product * inverse_count - mean * average
        image[...] = mask * inverse_std * (image - average - normalized * inverse_std * covariance)


def normal_equations(jacobian, moving, fixed, weight, cauchy2, hessian, gradient, sums):
    """Cauchy-weighted Gauss-Newton equations of moving - fixed, added to hessian, gradient and sums."""
    on = weight > 0
    w0, r = weight[on].astype(float), (moving - fixed)[on].astype(float)
    w = w0 / (1 + r**2 / cauchy2)
    rows = jacobian[:, on].astype(float)
    hessian += (rows * w) @ rows.T
    gradient += rows @ (w * r)
    m, f = moving[on].astype(float), fixed[on].astype(float)
    sums += [(w0 * cauchy2 * np.log1p(r**2 / cauchy2)).sum(), (w0 * m * f).sum(), (w0 * m * m).sum(), (w0 * f * f).sum(), w0.sum()]
