"""Compiled kernels: Joseph's line integrals with their pose derivative, local normalisation, normal equations.

Serial and GIL-free on purpose: callers run views and starts in parallel threads, where a parallel region inside a small
kernel would cost more than it saves.  Each kernel has the same name and meaning in :mod:`numpy_kernels`, which is slow
and obvious; the tests hold them together.

Method: P. M. Joseph, "An improved algorithm for reprojecting rays through pixel images", IEEE TMI 1:192 (1982): one
bilinear sample on each slice of the volume's main axis.  The volume is stored as 2x2 neighbourhoods of 8-bit values in
one 32-bit word, so that a sample is a single load.

The inner loops count in 32 bits from end to end: numba widens every product and shift of whole numbers to 64, which halves what a vector
register holds (measured: 1.5 times as fast).  Neighbouring rays follow each other along the axis that is contiguous in memory.
"""

from __future__ import annotations

import numpy as np
from numba import njit

F = np.float32
U = np.uint64
I32 = np.int32
BYTE, FIRST, SECOND, THIRD = np.uint32(255), np.uint32(8), np.uint32(16), np.uint32(24)
OPTIONS = {"fastmath": True, "cache": True, "nogil": True, "error_model": "numpy"}


@njit(inline="always")
def _clip_range(start, step, first, last, low, high):
    """Shrink the slice range [low, high] to where first <= start + k * step <= last."""
    if abs(step) < F(1e-7):
        if start < first or start > last:
            return F(1.0), F(0.0)
        return low, high
    per = F(1.0) / step
    p, q = (first - start) * per, (last - start) * per
    return max(low, min(p, q)), min(high, max(p, q))


@njit(inline="always")
def _slices(a0, da, b0, db, shape, slabs):
    """First slice of a ray and the one after its last: one voxel inside the padding, and within the slabs around all that is not zero."""
    one, inside = F(1.0), F(1e-3)
    k0, k1 = _clip_range(a0, da, one, F(shape[1] - 2) - inside, F(0.0), F(shape[0] - 1))
    k0, k1 = _clip_range(b0, db, one, F(shape[2] - 2) - inside, k0, k1)
    k0, k1 = _clip_range(a0, one + da, slabs[0, 0], slabs[0, 1], k0, k1)
    k0, k1 = _clip_range(-a0, one - da, slabs[1, 0], slabs[1, 1], k0, k1)
    k0, k1 = _clip_range(b0, one + db, slabs[2, 0], slabs[2, 1], k0, k1)
    k0, k1 = _clip_range(-b0, one - db, slabs[3, 0], slabs[3, 1], k0, k1)
    return I32(np.ceil(k0)), I32(np.floor(k1)) + I32(1)


@njit(inline="always")
def _corners(flat, index):
    """The four neighbours in the word at an int32 index, as floats: (a, b), (a, b + 1), (a + 1, b), (a + 1, b + 1)."""
    word = flat[U(index)]  # not negative, so that no test for an index counted from the end is compiled
    return F(I32(word & BYTE)), F(I32((word >> FIRST) & BYTE)), F(I32((word >> SECOND) & BYTE)), F(I32(word >> THIRD))


@njit(inline="always")
def _rays(mask, column_step, row_step):
    """How to walk through the pixels: whether down the columns first, and the numbers of outer and inner steps."""
    rows, cols = mask.shape
    down = abs(column_step[2]) < abs(row_step[2])
    return down, cols if down else rows, rows if down else cols


@njit(**OPTIONS)
def joseph(packed, slabs, scale, source, first, column_step, row_step, lengths, mask, out):
    """Line integrals of one view.

    packed: uint32 [k, a, b], fewer than 2^31 words; slabs: float32 (4, 2), the least and greatest k + a, k - a, k + b and k - b of all in it that
    is not zero; source, first, column_step, row_step: float64 (3,) in padded index units ordered (k, a, b);
    lengths: float32 (rows, cols), mm from source to pixel; mask: uint8, rays with 0 are skipped; out: float32, 1/mm * mm.
    """
    nk, na, nb = packed.shape
    flat = packed.ravel()
    sa, sk = I32(nb), I32(nb * na)
    down, outer, inner = _rays(mask, column_step, row_step)
    for step in range(outer):
        for place in range(inner):
            r, c = (place, step) if down else (step, place)
            if mask[r, c] == 0:
                out[r, c] = F(0.0)
                continue
            dk = first[0] + c * column_step[0] + r * row_step[0] - source[0]
            da = F((first[1] + c * column_step[1] + r * row_step[1] - source[1]) / dk)
            db = F((first[2] + c * column_step[2] + r * row_step[2] - source[2]) / dk)
            a0 = F(source[1] - source[0] * da)
            b0 = F(source[2] - source[0] * db)
            begin, end = _slices(a0, da, b0, db, packed.shape, slabs)
            total = F(0.0)
            for k in range(begin, end):
                slice_k = I32(k)
                fk = F(slice_k)
                a = a0 + fk * da
                b = b0 + fk * db
                ia, ib = I32(a), I32(b)
                fa, fb = a - F(ia), b - F(ib)
                p0, p1, q0, q1 = _corners(flat, I32(I32(I32(slice_k * sk) + I32(ia * sa)) + ib))
                x0 = p0 + fb * (p1 - p0)
                x1 = q0 + fb * (q1 - q0)
                total += x0 + fa * (x1 - x0)
            out[r, c] = total * F(lengths[r, c] / abs(dk)) * scale


@njit(**OPTIONS)
def joseph_jacobian(packed, slabs, scale, source, first, column_step, row_step, lengths, mask, rotation, world, out, jacobian):
    """Line integrals and their derivative by a left perturbation (rx, ry, rz, tx, ty, tz) of the pose.

    As :func:`joseph`; rotation: float64 (3, 3), isocentre mm -> index units, rows ordered (k, a, b); world: float64
    (4, 3), isocentre mm: source minus centre of rotation, first pixel minus source, column step, row step;
    jacobian: float32 (6, rows, cols).

    Derivation: on slice k the sample is s + alpha d with alpha = (k - s_k) / d_k.  The motion w x (X - c) + t of the
    volume moves it by -R (w x (X - c) + t) in index space; sliding back along the ray onto the slice leaves
    e_ab - e_k d_ab / d_k.  The weight L / |d_k| changes with R_k . (w x D) / d_k.
    """
    nk, na, nb = packed.shape
    flat = packed.ravel()
    sa, sk = I32(nb), I32(nb * na)
    middle = F(nk // 2)
    down, outer, inner = _rays(mask, column_step, row_step)
    cx, cy, cz = world[0, 0], world[0, 1], world[0, 2]
    for step in range(outer):
        for place in range(inner):
            r, c = (place, step) if down else (step, place)
            if mask[r, c] == 0:
                out[r, c] = F(0.0)
                for p in range(6):
                    jacobian[p, r, c] = F(0.0)
                continue
            dk = first[0] + c * column_step[0] + r * row_step[0] - source[0]
            slope_a = (first[1] + c * column_step[1] + r * row_step[1] - source[1]) / dk
            slope_b = (first[2] + c * column_step[2] + r * row_step[2] - source[2]) / dk
            da, db = F(slope_a), F(slope_b)
            a0 = F(source[1] - source[0] * slope_a)
            b0 = F(source[2] - source[0] * slope_b)
            begin, end = _slices(a0, da, b0, db, packed.shape, slabs)
            total, ga, gb, ma, mb = F(0.0), F(0.0), F(0.0), F(0.0), F(0.0)
            for k in range(begin, end):
                slice_k = I32(k)
                fk = F(slice_k)
                a = a0 + fk * da
                b = b0 + fk * db
                ia, ib = I32(a), I32(b)
                fa, fb = a - F(ia), b - F(ib)
                p0, p1, q0, q1 = _corners(flat, I32(I32(I32(slice_k * sk) + I32(ia * sa)) + ib))
                e0, e1 = p1 - p0, q1 - q0
                x0 = p0 + fb * e0
                dx = q0 + fb * e1 - x0
                dy = e0 + fa * (e1 - e0)
                total += x0 + fa * dx
                ga += dx
                gb += dy
                ma += (fk - middle) * dx
                mb += (fk - middle) * dy
            weight = lengths[r, c] / abs(dk) * scale
            value = total * weight
            out[r, c] = value
            # zeroth and first (alpha) moments of the gradient along the ray
            shift = source[0] - middle
            ga0, gb0 = ga * weight, gb * weight
            ga1, gb1 = (ma * weight - shift * ga0) / dk, (mb * weight - shift * gb0) / dk
            qa0 = rotation[1, 0] - slope_a * rotation[0, 0]
            qa1 = rotation[1, 1] - slope_a * rotation[0, 1]
            qa2 = rotation[1, 2] - slope_a * rotation[0, 2]
            qb0 = rotation[2, 0] - slope_b * rotation[0, 0]
            qb1 = rotation[2, 1] - slope_b * rotation[0, 1]
            qb2 = rotation[2, 2] - slope_b * rotation[0, 2]
            p0_, p1_, p2_ = ga0 * qa0 + gb0 * qb0, ga0 * qa1 + gb0 * qb1, ga0 * qa2 + gb0 * qb2
            h0, h1, h2 = ga1 * qa0 + gb1 * qb0, ga1 * qa1 + gb1 * qb1, ga1 * qa2 + gb1 * qb2
            ex = world[1, 0] + c * world[2, 0] + r * world[3, 0]
            ey = world[1, 1] + c * world[2, 1] + r * world[3, 1]
            ez = world[1, 2] + c * world[2, 2] + r * world[3, 2]
            stretch = value / dk
            jacobian[0, r, c] = -(cy * p2_ - cz * p1_ + ey * h2 - ez * h1) + stretch * (ey * rotation[0, 2] - ez * rotation[0, 1])
            jacobian[1, r, c] = -(cz * p0_ - cx * p2_ + ez * h0 - ex * h2) + stretch * (ez * rotation[0, 0] - ex * rotation[0, 2])
            jacobian[2, r, c] = -(cx * p1_ - cy * p0_ + ex * h1 - ey * h0) + stretch * (ex * rotation[0, 1] - ey * rotation[0, 0])
            jacobian[3, r, c] = -p0_
            jacobian[4, r, c] = -p1_
            jacobian[5, r, c] = -p2_


@njit(**OPTIONS)
def _box_sum(image, radius, out, rows_summed, column):
    """Sum over a (2 radius + 1)^2 window, zero outside the image, by running sums; the last two are work space."""
    n, m = image.shape
    for i in range(n):
        s = F(0.0)
        for j in range(min(radius, m)):
            s += image[i, j]
        for j in range(m):
            if j + radius < m:
                s += image[i, j + radius]
            if j - radius - 1 >= 0:
                s -= image[i, j - radius - 1]
            rows_summed[i, j] = s
    for j in range(m):
        column[j] = F(0.0)
    for i in range(min(radius, n)):
        for j in range(m):
            column[j] += rows_summed[i, j]
    for i in range(n):
        if i + radius < n:
            for j in range(m):
                column[j] += rows_summed[i + radius, j]
        if i - radius - 1 >= 0:
            for j in range(m):
                column[j] -= rows_summed[i - radius - 1, j]
        for j in range(m):
            out[i, j] = column[j]


@njit(**OPTIONS)
def box_sum(image, radius, out):
    """Sum over a (2 radius + 1)^2 window, zero outside; image and out: float32 (rows, cols)."""
    _box_sum(image, radius, out, np.empty_like(image), np.empty(image.shape[1], np.float32))


@njit(**OPTIONS)
def local_normalize(image, mask, inverse_count, radius, floor_factor, out, inverse_std, mean):
    """(image - local mean) / sqrt(local variance + floor^2) inside a masked box window.

    floor = floor_factor x the root mean local variance, so that flat regions are not blown up.  mask: float32 0/1;
    inverse_count: 1 / box_sum(mask), 0 where too few; out, inverse_std: float32; mean: float32, the local mean after the
    image's own mean was taken off.  Returns the floor.
    """
    n, m = image.shape
    work, square = np.empty_like(image), np.empty_like(image)
    temp, column = np.empty_like(image), np.empty(m, np.float32)
    total, count = 0.0, 0.0
    for i in range(n):
        for j in range(m):
            total += image[i, j] * mask[i, j]
            count += mask[i, j]
    offset = F(total / max(count, 1.0))  # keeps the single-precision sums of squares small
    for i in range(n):
        for j in range(m):
            work[i, j] = (image[i, j] - offset) * mask[i, j]
    _box_sum(work, radius, mean, temp, column)
    for i in range(n):
        for j in range(m):
            work[i, j] = work[i, j] * work[i, j]
    _box_sum(work, radius, square, temp, column)
    total = 0.0
    for i in range(n):
        for j in range(m):
            mu = mean[i, j] * inverse_count[i, j]
            variance = max(square[i, j] * inverse_count[i, j] - mu * mu, F(0.0))
            mean[i, j], square[i, j] = mu, variance
            total += variance * mask[i, j]
    floor2 = F(floor_factor * floor_factor * total / max(count, 1.0) + 1e-18)
    for i in range(n):
        for j in range(m):
            s = F(1.0) / np.sqrt(square[i, j] + floor2)
            inverse_std[i, j] = s
            out[i, j] = ((image[i, j] - offset) - mean[i, j]) * s * mask[i, j]
    return np.sqrt(floor2)


@njit(**OPTIONS)
def local_normalize_jacobian(jacobian, mask, inverse_count, radius, normalized, inverse_std, mean):
    """Push d image / d xi (P, rows, cols) through :func:`local_normalize`, in place; exact, with the floor held fixed.

    d variance = 2 (mean(x dx) - mean(x) mean(dx)) over the window.
    """
    count, n, m = jacobian.shape
    work, values = np.empty((n, m), np.float32), np.empty((n, m), np.float32)
    slope, product = np.empty((n, m), np.float32), np.empty((n, m), np.float32)
    temp, column = np.empty((n, m), np.float32), np.empty(m, np.float32)
    for i in range(n):
        for j in range(m):
            values[i, j] = normalized[i, j] / inverse_std[i, j] + mean[i, j]
    for p in range(count):
        for i in range(n):
            for j in range(m):
                work[i, j] = jacobian[p, i, j] * mask[i, j]
        _box_sum(work, radius, slope, temp, column)
        for i in range(n):
            for j in range(m):
                work[i, j] *= values[i, j]
        _box_sum(work, radius, product, temp, column)
        for i in range(n):
            for j in range(m):
                s = inverse_std[i, j]
                average = slope[i, j] * inverse_count[i, j]
                covariance = product[i, j] * inverse_count[i, j] - mean[i, j] * average
                jacobian[p, i, j] = mask[i, j] * s * (jacobian[p, i, j] - average - normalized[i, j] * s * covariance)


@njit(**OPTIONS)
def normal_equations(jacobian, moving, fixed, weight, cauchy2, hessian, gradient, sums):
    """Cauchy-weighted Gauss-Newton equations of moving - fixed, added to hessian (P, P) and gradient (P,).

    sums (5,) gains: cost, moving.fixed, moving.moving, fixed.fixed, weights (all weighted).
    """
    n, m = moving.shape
    parameters = jacobian.shape[0]
    residual, weighted = np.empty(m, np.float32), np.empty(m, np.float32)
    for i in range(n):
        votes = False
        for j in range(m):
            w0 = weight[i, j]
            residual[j] = weighted[j] = F(0.0)
            if w0 > 0:
                votes = True
                r = moving[i, j] - fixed[i, j]
                residual[j], weighted[j] = r, w0 / (1.0 + r * r / cauchy2)
                sums[0] += w0 * cauchy2 * np.log1p(r * r / cauchy2)
                sums[1] += w0 * moving[i, j] * fixed[i, j]
                sums[2] += w0 * moving[i, j] * moving[i, j]
                sums[3] += w0 * fixed[i, j] * fixed[i, j]
                sums[4] += w0
        if votes:  # a row of pixels at a time: whole vectors, and no more than a row is summed in single precision
            for p in range(parameters):
                total = F(0.0)
                for j in range(m):
                    total += weighted[j] * jacobian[p, i, j] * residual[j]
                gradient[p] += total
                for q in range(p + 1):
                    total = F(0.0)
                    for j in range(m):
                        total += weighted[j] * jacobian[p, i, j] * jacobian[q, i, j]
                    hessian[p, q] += total
    for p in range(parameters):
        for q in range(p):
            hessian[q, p] = hessian[p, q]
