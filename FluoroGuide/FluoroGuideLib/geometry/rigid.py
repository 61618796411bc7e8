"""Rigid motions of space (SE(3)), their perturbations about a chosen centre, and the derivatives of those.

A motion is a 4x4 float64 matrix.  A *perturbation* is ``xi = (rx, ry, rz, tx, ty, tz)``: a rotation vector in
radians about the point ``center_mm``, followed by a translation in mm.  It acts from the left:
``perturb(T, xi, c) = motion(xi, c) @ T``.  Keeping rotation and translation apart (instead of the coupled SE(3)
exponential) makes the translation part readable in mm and the derivative at zero the same.

References: J. Sola et al., "A micro Lie theory for state estimation in robotics", arXiv:1812.01537 (left Jacobian).
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from ..errors import FluoroGuideError


def skew(vector: np.ndarray) -> np.ndarray:
    """The matrix (3, 3) with ``skew(a) @ b == cross(a, b)``."""
    x, y, z = vector
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])


def rotation_from_vector(rotation_rad: np.ndarray) -> np.ndarray:
    """Rotation matrix (3, 3) of a rotation vector (3,) in radians (Rodrigues)."""
    angle = float(np.linalg.norm(rotation_rad))
    k = skew(rotation_rad)
    if angle < 1e-7:
        return np.eye(3) + k + 0.5 * (k @ k)
    return np.eye(3) + (np.sin(angle) / angle) * k + ((1 - np.cos(angle)) / angle**2) * (k @ k)


def vector_from_rotation(rotation: np.ndarray) -> np.ndarray:
    """Rotation vector (3,) in radians, length at most pi, of a rotation matrix (3, 3).

    Through the unit quaternion whose largest part is taken from the matrix and the others from it, so that nothing cancels at any angle (F. L.
    Markley, "Unit quaternion from rotation matrix", J. Guid. Control Dyn. 31:440, 2008).  A registration asks for thousands of them; scipy's
    own takes ten times as long, for it also looks at what a matrix could be that is no rotation.
    """
    m = np.asarray(rotation, float).tolist()
    trace = m[0][0] + m[1][1] + m[2][2]
    most = max(range(3), key=lambda n: m[n][n])
    if trace >= m[most][most]:
        q, real = [m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1]], 1 + trace
    else:
        i, j, k = most, (most + 1) % 3, (most + 2) % 3
        q, real = [0.0, 0.0, 0.0], m[k][j] - m[j][k]
        q[i], q[j], q[k] = 1 - trace + 2 * m[i][i], m[j][i] + m[i][j], m[k][i] + m[i][k]
    if real < 0:
        q, real = [-x for x in q], -real
    length = math.hypot(*q)
    angle = 2 * math.atan2(length, real)
    return np.array(q) * (angle / length if length > 0 else 0.0)


def left_jacobian(rotation_rad: np.ndarray) -> np.ndarray:
    """Left Jacobian (3, 3) of SO(3): ``exp(w + dw) = exp(J dw) exp(w)`` to first order."""
    angle = float(np.linalg.norm(rotation_rad))
    k = skew(rotation_rad)
    if angle < 1e-4:
        return np.eye(3) + 0.5 * k + (k @ k) / 6.0
    return np.eye(3) + ((1 - np.cos(angle)) / angle**2) * k + ((angle - np.sin(angle)) / angle**3) * (k @ k)


def motion(xi: np.ndarray, center_mm: np.ndarray) -> np.ndarray:
    """4x4 matrix of the perturbation ``xi`` (6,): rotate about ``center_mm``, then translate."""
    xi, center = np.asarray(xi, float), np.asarray(center_mm, float)
    matrix = np.eye(4)
    matrix[:3, :3] = rotation_from_vector(xi[:3])
    matrix[:3, 3] = center - matrix[:3, :3] @ center + xi[3:]
    return matrix


def perturb(pose: np.ndarray, xi: np.ndarray, center_mm: np.ndarray) -> np.ndarray:
    """``motion(xi, center_mm) @ pose``: the pose after a left perturbation."""
    return motion(xi, center_mm) @ pose


def difference(pose: np.ndarray, other: np.ndarray, center_mm: np.ndarray) -> np.ndarray:
    """The perturbation (6,) with ``perturb(pose, xi, center_mm) == other``."""
    delta = np.asarray(other, float) @ inverse(pose)
    center = np.asarray(center_mm, float)
    return np.r_[vector_from_rotation(delta[:3, :3]), delta[:3, :3] @ center + delta[:3, 3] - center]


def inverse(pose: np.ndarray) -> np.ndarray:
    """Inverse of a rigid 4x4 matrix, exact to rounding."""
    pose = np.asarray(pose, float)
    result = np.eye(4)
    result[:3, :3] = pose[:3, :3].T
    result[:3, 3] = -pose[:3, :3].T @ pose[:3, 3]
    return result


def apply(matrix: np.ndarray, points_mm: np.ndarray) -> np.ndarray:
    """Points (..., 3) moved by a 4x4 matrix."""
    matrix = np.asarray(matrix, float)
    return np.asarray(points_mm, float) @ matrix[:3, :3].T + matrix[:3, 3]


def point_jacobian(points_mm: np.ndarray, center_mm: np.ndarray, xi: np.ndarray | None = None) -> np.ndarray:
    """d ``motion(xi, c) x`` / d xi, shape (N, 3, 6), for points (N, 3) given *before* the motion.

    Exact at every ``xi``, not only at zero: the rotation columns are ``-[R (x - c)] J_l(xi_r)``.
    """
    xi = np.zeros(6) if xi is None else np.asarray(xi, float)
    lever = (np.atleast_2d(points_mm) - np.asarray(center_mm, float)) @ rotation_from_vector(xi[:3]).T
    jacobian = np.zeros((len(lever), 3, 6))
    jacobian[:, 0, 1], jacobian[:, 0, 2] = lever[:, 2], -lever[:, 1]
    jacobian[:, 1, 0], jacobian[:, 1, 2] = -lever[:, 2], lever[:, 0]
    jacobian[:, 2, 0], jacobian[:, 2, 1] = lever[:, 1], -lever[:, 0]
    jacobian[:, :, :3] = jacobian[:, :, :3] @ left_jacobian(xi[:3])
    jacobian[:, :, 3:] = np.eye(3)
    return jacobian


def recentered(covariance: np.ndarray, center_mm: np.ndarray, new_center_mm: np.ndarray) -> np.ndarray:
    """Covariance (6, 6) of a small perturbation about ``center_mm``, written about another centre.

    Rotating about ``c`` and translating by ``t`` equals rotating about ``c'`` and translating by
    ``t + w x (c' - c)`` to first order.
    """
    change = np.eye(6)
    change[3:, :3] = -skew(np.asarray(new_center_mm, float) - np.asarray(center_mm, float))
    return change @ np.asarray(covariance, float) @ change.T


def check_rigid(matrix: np.ndarray, name: str = "pose") -> np.ndarray:
    """The matrix as float64 4x4, rotation re-orthogonalised; raises when it is not a rigid motion.

    Raises
    ------
    FluoroGuideError
        Wrong shape, not finite, a scale or shear above 1e-3, or a reflection.
    """
    matrix = np.asarray(matrix, float)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise FluoroGuideError(f"The {name} is not a finite 4x4 matrix", matrix.shape, "Give a rigid transform.")
    u, s, vt = np.linalg.svd(matrix[:3, :3])
    if np.abs(s - 1).max() > 1e-3 or not np.allclose(matrix[3], (0, 0, 0, 1), atol=1e-6):
        raise FluoroGuideError(f"The {name} scales or shears", f"scales {np.round(s, 4)}", "Give a rigid transform.")
    if np.linalg.det(u @ vt) < 0:
        raise FluoroGuideError(f"The {name} mirrors left and right", None, "Give a rotation with determinant +1.")
    result = np.eye(4)
    result[:3, :3], result[:3, 3] = u @ vt, matrix[:3, 3]
    return result


def to_sitk(matrix: np.ndarray, center_mm: np.ndarray = (0.0, 0.0, 0.0)) -> object:
    """SimpleITK ``Euler3DTransform`` that maps points exactly as ``matrix`` does, with a given fixed centre."""
    import SimpleITK as sitk

    matrix, center = check_rigid(matrix), np.asarray(center_mm, float)
    transform = sitk.Euler3DTransform()
    transform.SetCenter(center.tolist())
    transform.SetMatrix(matrix[:3, :3].ravel().tolist(), 1e-6)
    transform.SetTranslation((matrix[:3, 3] + matrix[:3, :3] @ center - center).tolist())
    return transform


def from_sitk(transform: object) -> np.ndarray:
    """4x4 matrix of a SimpleITK transform that is rigid (Euler, versor, affine without scale, or a composite of them).

    Raises
    ------
    FluoroGuideError
        The transform is two-dimensional, bends space (B-spline, displacement field), scales or mirrors.
    """
    if transform.GetDimension() != 3 or not transform.IsLinear():
        raise FluoroGuideError("The transform is not a rigid motion in 3-D", transform.GetName(), "Give a rigid transform.")
    points = np.vstack([np.zeros(3), np.eye(3) * 100.0])
    moved = np.array([transform.TransformPoint(p.tolist()) for p in points])
    matrix = np.eye(4)
    matrix[:3, :3] = (moved[1:] - moved[0]).T / 100.0
    matrix[:3, 3] = moved[0]
    return check_rigid(matrix, "transform")


def write_tfm(path: str | Path, matrix: np.ndarray) -> None:
    """Write a pose as an ITK ``.tfm`` file: it maps *points* of the volume to isocentre points, both LPS.

    Slicer shows such a file as *from parent*, so a pose loaded there by hand appears inverted (DESIGN 3).
    """
    import SimpleITK as sitk

    sitk.WriteTransform(to_sitk(matrix), str(path))


def read_tfm(path: str | Path) -> np.ndarray:
    """Read a pose (4x4, point map, LPS) from an ITK transform file.

    Raises
    ------
    FluoroGuideError
        The file is missing, is no ITK transform, or is not rigid.
    """
    import SimpleITK as sitk

    if not Path(path).is_file():
        raise FluoroGuideError("The transform file does not exist", path, "Check the path given with --initial or --pose.")
    _check_transform_text(Path(path))
    try:
        transform = sitk.ReadTransform(str(path))
    except (RuntimeError, UnicodeDecodeError):  # the latter: ITK's message quotes the file
        raise FluoroGuideError("The file is not an ITK transform", path, "Give a .tfm file with a rigid transform.") from None
    return from_sitk(transform)


_COUNTS = {
    "Euler3DTransform": (6, (3, 4)), "VersorRigid3DTransform": (6, (3,)), "Similarity3DTransform": (7, (3,)), "AffineTransform": (12, (3,)),
    "MatrixOffsetTransformBase": (12, (3,)), "TranslationTransform": (3, (0,)), "ScaleVersor3DTransform": (9, (3,)), "VersorTransform": (3, (3,)),
    "ScaleSkewVersor3DTransform": (15, (3,)), "IdentityTransform": (0, (0,)),
}
"""ITK's 3-D transforms: numbers of parameters and of fixed parameters."""


def _check_transform_text(path: Path) -> None:
    """Raise for a damaged text transform: ITK crashes (not merely fails) when the numbers of parameters are wrong."""
    head = path.read_bytes()[:100_000]
    if head[:4] == b"\x89HDF":
        return
    blocks: list[dict[str, str]] = []
    for line in head.decode("latin-1").splitlines():
        key, colon, value = line.partition(":")
        if line.startswith("#") or not colon:
            continue
        if key.strip() == "Transform":
            blocks.append({})
        if not blocks or key.strip() in blocks[-1]:
            blocks = []
            break
        blocks[-1][key.strip()] = value.strip()
    if not head.startswith(b"#Insight Transform File") or not blocks or not all(_whole_block(b, n == 0) for n, b in enumerate(blocks)):
        raise FluoroGuideError("The file is not an ITK transform", path.name, "Give a .tfm file with one rigid 3-D transform.")


def _whole_block(block: dict[str, str], first: bool) -> bool:
    """Whether one transform of a text file has the numbers that its type needs."""
    name, _, form = block["Transform"].partition("_")
    if form not in ("double_3_3", "float_3_3"):
        return False
    if name == "CompositeTransform":
        return first and not any(v for k, v in block.items() if k != "Transform")
    try:
        numbers, fixed = ([float(v) for v in block[key].split()] for key in ("Parameters", "FixedParameters"))
    except (KeyError, ValueError):
        return False
    count, allowed = _COUNTS.get(name, (-1, ()))
    return len(numbers) == count and len(fixed) in allowed and bool(np.isfinite(numbers + fixed).all())
