"""The shift of one bone between two frames, by robust least squares on what its own DRR says the change must be.

What lies around the bone may move as well (soft tissue), what changes more than any motion (contrast agent, a needle) has
no say, and pixels that were seen to be restless have little.
"""

from __future__ import annotations

import numpy as np

from .align2d import translated

SEARCH_MM, SEARCH_STEP_MM = 9.0, 1.5
"""Shifts that a frame may jump by, and the grid on which they are tried."""
FOREIGN = 6.0
"""So many times the change of a 2 mm shift: no motion does that; contrast agent, a needle or a hand does."""
THIN = 3
LEARN_FROM, LEARN_FRAMES = 5, 60
"""Frames after which a pixel's own restlessness counts, and over how many it is averaged."""
AROUND_MM = 1.5
"""Standard deviation by which what lies around the bone (soft tissue) may move in the model."""


class ShiftModel:
    """Finds the shift of one bone in the difference of two frames."""

    def __init__(self, bone: np.ndarray, weight: np.ndarray, mm_per_px: float) -> None:
        self.bone, self.gain, self.around_px = np.ascontiguousarray(bone, np.float32), 1.0, AROUND_MM / mm_per_px
        # The picture was smoothed by more than a pixel: every second one tells what all of them tell.
        self._use = tuple(np.ascontiguousarray(i[::2]) for i in np.nonzero(self._reach(weight, SEARCH_MM / mm_per_px)))
        steps = np.arange(-SEARCH_MM, SEARCH_MM + 0.1, SEARCH_STEP_MM) / mm_per_px
        self._shifts = np.array([(c, r) for r in steps for c in steps])
        # The search may thin the pixels out: it only has to find the right valley.
        self._thin = tuple(i[::THIN] for i in self._use)
        self.forget()
        self._stack = np.array([self._change(d, self._thin) for d in self._shifts], np.float32)
        self._squares = self._stack**2
        near = np.abs(np.hypot(*self._shifts.T) * mm_per_px - 2.0) < 1.0
        self._typical = float(np.percentile(np.abs(self._stack[near]), 90))  # a 2 mm shift's own changes are no outliers

    @property
    def pixels(self) -> tuple[np.ndarray, np.ndarray]:
        """(rows, columns) of the pixels that are looked at."""
        return self._use

    @staticmethod
    def _reach(weight: np.ndarray, pixels: float) -> np.ndarray:
        """Pixels that the bone's edges can come to lie on."""
        from scipy.ndimage import binary_dilation

        return binary_dilation(weight > 0, iterations=max(1, round(0.4 * pixels)))

    def _change(self, shift_px: np.ndarray, where: tuple) -> np.ndarray:
        return (translated(self.bone, shift_px) - self.bone)[where]  # linear: the picture was smoothed by more than a pixel

    def set_reference(self, reference: np.ndarray, gain: float) -> None:
        """The frame that shifts are measured from, and its grey values per unit of the DRR: what is not this bone may move as well."""
        self.gain = float(gain)
        down, right = np.gradient(reference - self.gain * self.bone)
        self._around = -np.stack([right[self._use], down[self._use]]).astype(np.float32)

    def forget(self) -> None:
        """A new reference: nothing is known of its pixels."""
        self._power, self._seen = np.zeros(len(self._use[0])), 0

    def foreign(self, difference: np.ndarray) -> np.ndarray:
        """Where a difference is larger than any motion's, with its surroundings."""
        from scipy.ndimage import binary_dilation, binary_fill_holes

        strong = np.abs(difference) > FOREIGN * self._scale(difference)
        # A filled disc shows as a ring: what is broad was taken out of the picture.
        return binary_fill_holes(binary_dilation(strong, iterations=3)) if strong.any() else strong

    def learn(self, difference: np.ndarray, shift_px: np.ndarray) -> None:
        """How much each pixel changes without the bone: where soft tissue, bowel gas or a vessel moves, little can be learned."""
        residual = difference[self._use] - self.gain * self._change(shift_px, self._use)
        self._seen += 1
        self._power += (residual**2 - self._power) / min(self._seen, LEARN_FRAMES)

    def _trust(self) -> np.ndarray:
        """Weight of each pixel of ``_use`` by what it was seen to do, 0..1."""
        if self._seen < LEARN_FROM:
            return np.ones(len(self._use[0]), np.float32)
        usual = float(np.median(self._power))
        return (usual / (self._power + usual)).astype(np.float32)

    def _scale(self, difference: np.ndarray) -> float:
        return max(1.4826 * float(np.median(np.abs(difference[self._use]))), self.gain * self._typical) + 1e-9

    def find(self, difference: np.ndarray, weight: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, float, float]:
        """Shift (column, row) in pixels, the part of the difference it explains (0..1), and the shift's standard deviation."""
        w_all = (np.where(weight > 0, weight, 0.15) * counts)[self._use] * self._trust()
        d, w = difference[self._thin], w_all[::THIN]
        scale = self._scale(difference)
        w = w / (1 + (d / (3 * scale)) ** 2)
        d = d - (w * d).sum() / max(w.sum(), 1e-9)
        # Single precision throughout: with a double on one side the whole stack would be converted for each frame.
        cost = -2 * self.gain * (self._stack @ (w * d).astype(np.float32)) + self.gain**2 * (self._squares @ w.astype(np.float32))
        start = self._shifts[int(np.argmin(cost))]
        return self._refined(difference[self._use], w_all, start)

    def _refined(self, d: np.ndarray, w0: np.ndarray, shift_px: np.ndarray) -> tuple[np.ndarray, float, float]:
        x = np.r_[np.array(shift_px, float), 0.0, 0.0]  # the bone's shift, and that of what lies around it
        sigma, explained, gain = 0.0, 0.0, self.gain
        away = (d - np.median(d)) ** 2
        for _ in range(6):
            change = self._change(x[:2], self._use)
            around = x[2:].astype(np.float32) @ self._around
            # The grey scale was guessed from one picture with more than this bone in it; a large shift measures it.
            prior = 0.5 * w0.sum() * self._typical**2 / 4
            gain = float(np.clip((w0 @ ((d - around) * change) + prior * self.gain) / (w0 @ change**2 + prior), 0.4 * self.gain, 1.5 * self.gain))
            here = gain * change
            slope = np.stack([gain * self._change(x[:2] + h, self._use) - here for h in np.eye(2) * 0.5]) / 0.5
            columns = np.concatenate([slope, self._around])
            residual = d - here - around
            residual -= np.median(residual)
            scale = max(1.4826 * float(np.median(np.abs(residual))), 0.5 * self.gain * self._typical) + 1e-9
            w = w0 / (1 + (residual / (2.4 * scale)) ** 2)
            hessian = ((columns * w) @ columns.T).astype(float)
            hessian[np.diag_indices(4)] += 1e-4 * np.trace(hessian[:2, :2]) + 1e-12
            hold = np.r_[0.0, 0.0, 9.0 * scale**2 / self.around_px**2 * np.ones(2)]
            hessian[np.diag_indices(4)] += hold
            step = np.linalg.solve(hessian, columns @ (w * residual) - hold * x)
            x += np.clip(step, -3, 3)
            # neighbouring pixels share their noise (smoothing): about one in nine is independent
            spread = np.linalg.inv(hessian)[:2, :2]
            sigma = float(3.0 * np.sqrt(np.trace(spread) * (w * residual**2).sum() / max(w.sum(), 1e-9) * np.mean(w0)))
            explained = float(1 - (w * residual**2).sum() / max((w * away).sum(), 1e-12))
            if np.abs(step[:2]).max() < 0.02:
                break
        return x[:2], float(np.clip(explained, 0, 1)), sigma
