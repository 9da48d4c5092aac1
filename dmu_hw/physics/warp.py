"""Smooth maps between planes (mirrors, sample, camera): affine plus a polynomial distortion, and their inverses.

Works on numpy arrays and torch tensors alike, since it only adds and multiplies; it loads neither torch nor scipy.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from dmu_hw.files import Positive, Settings

Pair = tuple[float, float]
Terms = Annotated[tuple[float, ...], Field(min_length=7, max_length=7)]
ZERO: Terms = (0.0,) * 7
_NEWTON_STEPS = 8
_LEAST_DETERMINANT = 1e-9
"""As a part of what the largest entry of a matrix would give."""


class Warp(Settings):
    """p ↦ matrix · p + shift + distortion(p), with p = (x, y)."""

    matrix: tuple[Pair, Pair] = ((1.0, 0.0), (0.0, 1.0))
    shift: Pair = (0.0, 0.0)
    distortion: tuple[Terms, Terms] = (ZERO, ZERO)
    """Coefficients of x², xy, y², x³, x²y, xy², y³ for x and for y, with x and y in units of `radius`."""
    radius: Positive = 1.0

    @model_validator(mode="after")
    def _has_an_inverse(self) -> Warp:
        (a, b), (c, d) = self.matrix
        largest = max(map(abs, (a, b, c, d)))
        if not abs(a * d - b * c) > _LEAST_DETERMINANT * largest**2:
            raise ValueError(f"matrix {self.matrix} maps the plane onto a line and cannot be inverted")
        return self

    @property
    def is_identity(self) -> bool:
        return self.matrix == ((1.0, 0.0), (0.0, 1.0)) and self.shift == (0.0, 0.0) and self.is_affine

    @property
    def is_affine(self) -> bool:
        return not any(self.distortion[0]) and not any(self.distortion[1])

    def stretched(self, factor: float) -> Warp:
        """The same map into a plane whose unit is smaller by that."""
        (a, b), (c, d) = self.matrix
        across, down = (tuple(factor * term for term in line) for line in self.distortion)
        return Warp(
            matrix=((factor * a, factor * b), (factor * c, factor * d)),
            shift=(factor * self.shift[0], factor * self.shift[1]),
            distortion=(across, down),
            radius=self.radius,
        )

    def moved(self, matrix: tuple[Pair, Pair], shift: Pair) -> Warp:
        """The same map, and after it matrix · p + shift."""
        (a, b), (c, d) = matrix

        def turned(x: float, y: float) -> Pair:
            return a * x + b * y, c * x + d * y

        columns = [turned(x, y) for x, y in zip(*self.matrix, strict=True)]
        bends = [turned(x, y) for x, y in zip(*self.distortion, strict=True)]
        x, y = turned(*self.shift)
        return Warp(
            matrix=((columns[0][0], columns[1][0]), (columns[0][1], columns[1][1])),
            shift=(x + shift[0], y + shift[1]),
            distortion=(tuple(bend[0] for bend in bends), tuple(bend[1] for bend in bends)),
            radius=self.radius,
        )

    def apply(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Map points (arrays of any shape)."""
        (a, b), (c, d) = self.matrix
        out_x, out_y = a * x + b * y + self.shift[0], c * x + d * y + self.shift[1]
        if self.is_affine:
            return out_x, out_y
        u, v = x / self.radius, y / self.radius
        terms = (u * u, u * v, v * v, u * u * u, u * u * v, u * v * v, v * v * v)
        for coefficient_x, coefficient_y, term in zip(*self.distortion, terms, strict=True):
            out_x, out_y = out_x + coefficient_x * term, out_y + coefficient_y * term
        return out_x, out_y

    def invert(self, x: Any, y: Any) -> tuple[Any, Any]:
        """The points that `apply` maps to (x, y), by Newton's method from the affine inverse."""
        (a, b), (c, d) = self.matrix
        det = a * d - b * c
        dx, dy = x - self.shift[0], y - self.shift[1]
        u, v = (d * dx - b * dy) / det, (a * dy - c * dx) / det
        if self.is_affine:
            return u, v
        for _ in range(_NEWTON_STEPS):
            got_x, got_y = self.apply(u, v)
            (xu, xv), (yu, yv) = self._slopes(u, v)
            det = xu * yv - xv * yu
            rx, ry = x - got_x, y - got_y
            u, v = u + (yv * rx - xv * ry) / det, v + (xu * ry - yu * rx) / det
        return u, v

    def _slopes(self, x: Any, y: Any) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
        u, v = x / self.radius, y / self.radius
        by_u = (2 * u, v, 0.0, 3 * u * u, 2 * u * v, v * v, 0.0)
        by_v = (0.0, u, 2 * v, 0.0, u * u, 2 * u * v, 3 * v * v)
        rows: list[tuple[Any, Any]] = []
        for linear, coefficients in zip(self.matrix, self.distortion, strict=True):
            along_x, along_y = linear
            for coefficient, du, dv in zip(coefficients, by_u, by_v, strict=True):
                along_x, along_y = along_x + coefficient * du / self.radius, along_y + coefficient * dv / self.radius
            rows.append((along_x, along_y))
        return rows[0], rows[1]
