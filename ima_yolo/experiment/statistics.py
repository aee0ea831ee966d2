"""Paired comparisons over seeds: differences, intervals, and what may be said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev

from scipy.stats import t as student_t

CONFIDENCE = 0.95
LEAST_WIDTH = 1e-9  # width of an interval that tells nothing


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
        if self.high - self.low < LEAST_WIDTH:  # not chance: the same training twice, or a score that hardly moves
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
    return _with_interval(differences) if differences else None


def _with_interval(differences: tuple[float, ...]) -> Paired:
    mean, half = fmean(differences), half_interval(differences)
    return Paired(differences, mean, *((None, None) if half is None else (mean - half, mean + half)))


def averaged(found: Sequence[Paired]) -> Paired | None:
    r"""The mean over several comparisons, each of which counts once, whatever its number of seeds.

    .. math:: \bar d = \frac{1}{k} \sum_i \bar d_i, \quad
        \mathrm{se}^2 = \frac{1}{k^2} \sum_i \frac{s_i^2}{n_i}, \quad
        \nu = \Big(\sum_i \frac{s_i^2}{n_i}\Big)^2 \Big/ \sum_i \frac{(s_i^2 / n_i)^2}{n_i - 1}

    The interval is Student's t with the degrees of freedom of Welch and Satterthwaite (Satterthwaite 1946). It says how
    far other seeds would move the mean over these comparisons, and nothing of other data.

    Args:
        found: The comparisons.

    Returns:
        With the means as its differences; None where one has a single seed.
    """
    if not found or any(len(one.differences) < 2 for one in found):
        return None
    means = tuple(one.mean for one in found)
    parts = [(stdev(one.differences) ** 2 / len(one.differences), len(one.differences) - 1) for one in found]
    spread = sum(part for part, _ in parts)
    freedom = spread**2 / sum(part**2 / count for part, count in parts) if spread else 1
    half = float(student_t.ppf((1 + CONFIDENCE) / 2, freedom)) * sqrt(spread) / len(found)
    return Paired(means, fmean(means), fmean(means) - half, fmean(means) + half)


def over_comparisons(found: Sequence[Paired]) -> Paired | None:
    r"""The mean over several comparisons as `averaged` has it, with an interval of the comparisons and not of seeds.

    .. math:: \bar d \pm t_{k-1} \, s(\bar d_1, \dots, \bar d_k) / \sqrt{k}

    It says how far other comparisons like these would move the mean, and is the wider one where they differ by more
    than chance, or have trainings in common, which `averaged` takes for independent.

    Args:
        found: The comparisons.

    Returns:
        With the means as its differences; None for fewer than two.
    """
    return _with_interval(tuple(one.mean for one in found)) if len(found) > 1 else None


def half_interval(values: Sequence[float]) -> float | None:
    """Half the width of the 95% interval of a mean, by Student's t; None for fewer than two values."""
    count = len(values)
    if count < 2:
        return None
    return float(student_t.ppf((1 + CONFIDENCE) / 2, count - 1)) * stdev(values) / sqrt(count)
