"""Sweeps: settings over a space, as a grid or proposed by Optuna, on the machinery of a study."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from ima_yolo.config import PREFIX, own_keys, split
from ima_yolo.errors import IMAError, nearest
from ima_yolo.experiment.arms import ALIKE, DECIDED, NAMED, PLACES, TRIAL, Arm
from ima_yolo.experiment.study import Study
from ima_yolo.lists import are_distinct

MOST_GRID = 1000  # arms of a grid: more is a slip of the pen
TRIALS = 20


@dataclass(frozen=True)
class Range:
    """Numbers between two ends, both included.

    Attributes:
        low: Lower end.
        high: Upper end.
        log: Whether they are drawn evenly in their logarithm.
    """

    low: float
    high: float
    log: bool = False

    @property
    def whole(self) -> bool:
        """Whether both ends, and so all values, are whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)


Space = dict[str, "list[Any] | Range"]


def read_space(given: Any) -> Space:
    """Build the space of a sweep from what the user wrote.

    Args:
        given: A key to a list of values, or to `{low: 0.1, high: 10, log: true}`.

    Raises:
        IMAError: For a key that does not exist, or a range that makes no sense.
    """
    if not isinstance(given, Mapping) or not given:
        what = "space= is missing" if given in (None, "none") else f"space={given}: no keys with values"
        raise IMAError(f"{what}: give keys with values, in a recipe (cfg=) or as space=\"{{'ima_weight': [0.1, 1]}}\"")
    return {str(key): _dimension(str(key), values) for key, values in given.items()}


def _dimension(key: str, values: Any) -> list[Any] | Range:
    if key.startswith(PREFIX) and key not in own_keys():
        raise IMAError(f"space: '{key}' is not a setting{nearest(key, own_keys())}")
    if key == "mask_ratio":  # a study trains detectors, to which it means nothing
        raise IMAError("space: mask_ratio is of Ultralytics' segmentation; the share that is hidden is ima_mask_ratio")
    ours, rest = split({key: None})
    if not ours.keys() | (rest.keys() - {"model", "distill_model"} - ALIKE - DECIDED - PLACES) or key == "teacher":
        raise IMAError(f"space: {key} is the same for all trainings of a sweep")
    if isinstance(values, Mapping):
        return _range(key, values)
    listed = ["none" if value is None else value for value in values] if isinstance(values, list | tuple) else []
    if len(listed) < 2 or not are_distinct(listed):
        raise IMAError(f"space: {key}: expected at least two different values, or low: and high:")
    return listed


def _range(key: str, values: Mapping[str, Any]) -> Range:
    known = {"low", "high", "log"}
    ends = [values.get("low"), values.get("high")]
    whole = set(values) <= known and isinstance(values.get("log", False), bool)
    if not whole or any(isinstance(end, bool) or not isinstance(end, int | float) for end in ends):
        raise IMAError(f"space: {key}: expected the numbers low: and high:, and log: true or false")
    found = Range(values["low"], values["high"], values.get("log", False))
    if not found.low < found.high or (found.log and found.low <= 0):
        raise IMAError(f"space: {key}: expected low < high" + (", and low > 0 with log: true" if found.log else ""))
    return found


def is_grid(space: Space, trials: int | None) -> bool:
    """Whether every combination is trained: there are only lists, and no smaller number of trials is asked for."""
    sizes = [len(values) for values in space.values() if isinstance(values, list)]
    count = 1
    for size in sizes:
        count *= size
    if len(sizes) < len(space) or (trials is not None and trials < count):
        return False
    if count > MOST_GRID:
        raise IMAError(f"space: {count} combinations; give trials= to have Optuna choose among them")
    return True


def grid(space: Space) -> tuple[Arm, ...]:
    """An arm for each combination, after `none`."""
    columns = [values for values in space.values() if isinstance(values, list)]
    return (NAMED["none"], *(_arm(dict(zip(space, row, strict=True))) for row in itertools.product(*columns)))


def edges(space: Space) -> tuple[Arm, ...]:
    """Arms that hold every end and every value of a space, so that all can be checked before anything is trained."""
    columns = [values if isinstance(values, list) else [values.low, values.high] for values in space.values()]
    rows = itertools.zip_longest(*columns)
    filled = [
        {key: column[0] if value is None else value for key, column, value in zip(space, columns, row, strict=True)}
        for row in rows
    ]
    return tuple(_arm(row) for row in filled)


def _arm(settings: dict[str, Any], name: str | None = None) -> Arm:
    words = [f"{key.removeprefix(PREFIX)}-{value}" for key, value in sorted(settings.items())]  # whatever their order
    return Arm(name or re.sub(r"[^A-Za-z0-9._-]+", "-", "_".join(words)).strip("-"), "ima", settings)


def propose_and_run(
    study: Study, space: Space, trials: int, at_once: int, work: Callable[[Study], object], score: str = "map50_95"
) -> Study:
    """Let Optuna's TPE propose settings until enough have been tried.

    What has been tried is read from the study's folder alone, so that a sweep that was stopped goes on: trials without
    a result are trained first, finished ones are what the next proposals are made from.

    Args:
        study: With `none` and the trials so far as its arms.
        space: Where to search.
        trials: How many settings to try.
        at_once: How many to propose together.
        work: Trains what a study has open.
        score: What is maximised, as a mean over the seeds.

    Returns:
        The study with all trials.

    Raises:
        IMAError: If Optuna is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise IMAError(
            "this space needs Optuna, which is not installed; pip install '.[sweep]' where IMA-YOLO was cloned"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {key: _distribution(optuna, values) for key, values in space.items()}
    work(study)
    while (tried := len(study.arms) - 1) < trials:
        sampler = optuna.samplers.TPESampler(seed=tried, constant_liar=True)
        search = optuna.create_study(direction="maximize", sampler=sampler)
        for arm in study.arms[1:]:
            search.add_trial(_past(optuna, study, arm, distributions, score))
        asked = [search.ask(distributions).params for _ in range(min(at_once, trials - tried))]
        new = [_arm(settings, f"{TRIAL}{tried + number:03d}") for number, settings in enumerate(asked)]
        study = Study(**{**vars(study), "arms": (*study.arms, *new)})
        work(study)
    return study


def _distribution(optuna: Any, values: list[Any] | Range) -> Any:
    if isinstance(values, list):
        return optuna.distributions.CategoricalDistribution(values)
    if values.whole:
        return optuna.distributions.IntDistribution(int(values.low), int(values.high), log=values.log)
    return optuna.distributions.FloatDistribution(float(values.low), float(values.high), log=values.log)


def _past(optuna: Any, study: Study, arm: Arm, distributions: Mapping[str, Any], score: str) -> Any:
    scores = [result[score] for result in study.results() if result["arm"] == arm.name]
    state = optuna.trial.TrialState.COMPLETE if scores else optuna.trial.TrialState.FAIL
    value = fmean(scores) if scores else None
    return optuna.trial.create_trial(params=arm.settings, distributions=distributions, value=value, state=state)


def tried_arms(saved: Iterable[Arm], space: Space) -> tuple[Arm, ...]:
    """Trials that a folder holds already.

    Raises:
        IMAError: If they are of another space.
    """
    found = tuple(arm for arm in saved if arm.name.startswith(TRIAL))
    for arm in found:
        if set(arm.settings) != set(space) or not all(_inside(arm.settings[key], space[key]) for key in space):
            raise IMAError(f"name=: that folder holds a sweep of another space ({arm.name}); choose another name")
    return found


def _inside(value: Any, values: list[Any] | Range) -> bool:
    return value in values if isinstance(values, list) else values.low <= value <= values.high
