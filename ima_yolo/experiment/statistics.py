"""Paired comparisons over seeds: differences, intervals, and what may be said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev

from scipy.stats import t as student_t

CONFIDENCE = 0.95
ALIKE = 1e-9  # width of an interval that tells nothing


@dataclass(frozen=True)
class Paired:
    """Differences of one arm to another over the seeds that both have.

    Attributes:
        differences: One a seed, in the unit of the scores.
        mean: Their mean.
        low: Lower end of the 95% interval of the mean; None with a single seed.
        high: Upper end.
    """

    differences: tuple[float, ...]
    mean: float
    low: float | None
    high: float | None

    @property
    def verdict(self) -> str:
        """What the interval allows to say."""
        if self.low is None or self.high is None:
            return "one seed: no interval, no evidence"
        if self.high - self.low < ALIKE:  # not chance: the same training twice, or a score that hardly moves
            return "no evidence of a difference"
        if self.low > 0:
            return "better"
        if self.high < 0:
            return "worse"
        return "no evidence of a difference"


def paired(scores: Mapping[int, float], baseline: Mapping[int, float]) -> Paired | None:
    """Compare two arms over the seeds that both have.

    The interval is Student's t on the differences: seeds share data order, augmentation and initial weights, so what
    they have in common cancels.

    Args:
        scores: Score by seed.
        baseline: Score by seed of the arm to compare with.

    Returns:
        The comparison, or None without a common seed.
    """
    differences = tuple(scores[seed] - baseline[seed] for seed in sorted(scores.keys() & baseline.keys()))
    if not differences:
        return None
    mean = fmean(differences)
    half = half_interval(differences)
    return Paired(differences, mean, *((None, None) if half is None else (mean - half, mean + half)))


def half_interval(values: Sequence[float]) -> float | None:
    """Half the width of the 95% interval of a mean, by Student's t; None for fewer than two values."""
    count = len(values)
    if count < 2:
        return None
    return float(student_t.ppf((1 + CONFIDENCE) / 2, count - 1)) * stdev(values) / sqrt(count)
