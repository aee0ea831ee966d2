from __future__ import annotations

import pytest

from ima_yolo.experiment.statistics import averaged, half_interval, over_comparisons, paired
from ima_yolo.experiment.tables import comparison, conclusions, markdown, nothing_to_compare, same_conditions


def test_the_interval_is_students_t() -> None:
    # Differences 1, 2, 3: mean 2, deviation 1, t(0.975, 2 degrees of freedom) = 4.3027, so 4.3027 / sqrt(3) = 2.4842
    found = paired({0: 11, 1: 22, 2: 33}, {0: 10, 1: 20, 2: 30})
    assert found.differences == (1, 2, 3)
    assert found.mean == 2
    assert found.low == pytest.approx(2 - 2.4842, abs=1e-3)
    assert found.high == pytest.approx(2 + 2.4842, abs=1e-3)


def test_pairing_removes_what_seeds_have_in_common() -> None:
    wide, narrow = {0: 10.0, 1: 50.0, 2: 90.0}, {0: 11.0, 1: 51.1, 2: 90.9}
    assert paired(narrow, wide).verdict == "better"
    assert half_interval(list(wide.values())) > 90


@pytest.mark.parametrize(
    ("scores", "verdict"),
    [
        ({0: 2.0, 1: 2.1, 2: 2.2}, "better"),
        ({0: -2.0, 1: -2.1, 2: -2.2}, "worse"),
        ({0: -2.0, 1: 2.1, 2: 0.1}, "no evidence of a difference"),
        ({0: 2.0, 1: 2.0}, "no evidence of a difference"),
        ({0: 5.0}, "one seed: no interval, no evidence"),
    ],
)
def test_the_verdict_says_no_more_than_the_interval(scores: dict[int, float], verdict: str) -> None:
    assert paired(scores, {0: 0.0, 1: 0.0, 2: 0.0}).verdict == verdict


def test_the_mean_over_comparisons_has_the_interval_of_welch() -> None:
    """Two of the same spread and size have the degrees of freedom of both; one that is noisy lends it its own."""
    quiet, noisy = {0: 1.0, 1: 2.0, 2: 3.0}, {0: -7.0, 1: 3.0, 2: 13.0}
    zero = dict.fromkeys(range(3), 0.0)
    same = averaged([paired(quiet, zero), paired(quiet, zero)])
    assert (same.mean, same.differences) == (2.0, (2.0, 2.0))
    assert same.high - same.mean == pytest.approx(2.7764 / 6**0.5, abs=1e-3)  # t(0.975, 4)
    mixed = averaged([paired(quiet, zero), paired(noisy, zero)])
    assert mixed.mean == 2.5
    # sum of s^2/n is 101/3; degrees of freedom 2 * 101^2 / (1 + 100^2) = 2.04
    assert mixed.high - mixed.mean == pytest.approx(4.2228 * (101 / 3) ** 0.5 / 2, rel=5e-3)
    assert averaged([paired(quiet, zero)]).low == pytest.approx(paired(quiet, zero).low)
    assert averaged([paired(quiet, zero), paired({0: 1.0}, zero)]) is None
    assert averaged([]) is None


def test_only_common_seeds_are_compared() -> None:
    assert paired({0: 1.0, 1: 2.0}, {1: 1.0, 2: 5.0}).differences == (1.0,)
    assert paired({0: 1.0}, {1: 1.0}) is None


def result(arm: str, seed: int, score: float, images: str = "a") -> dict[str, object]:
    digests = {"initial_digest": "w", "data_digest": images}
    return {"arm": arm, "seed": seed, "map50_95": score, "seconds": 60.0, **digests}


RESULTS = [
    *(result("none", seed, 0.40 + 0.1 * seed) for seed in range(3)),
    *(result("builtin", seed, 0.41 + 0.1 * seed) for seed in range(3)),
    *(result("ima", seed, score) for seed, score in enumerate((0.420, 0.521, 0.619))),
]


def test_the_table_compares_with_the_first_arm_and_with_builtin() -> None:
    none, builtin, ima = comparison(RESULTS, ["none", "builtin", "ima"])
    assert none["mean"] == pytest.approx(50.0)
    assert none["against"] == {}, "each pair is compared once"
    assert set(builtin["against"]) == {"none"}
    assert ima["against"]["none"].mean == pytest.approx(2.0)
    assert ima["against"]["builtin"].mean == pytest.approx(1.0)
    text = markdown([none, builtin, ima])
    assert "| ima | 3 | 52.00 ±" in text
    assert "+2.00 [+1.75, +2.25] better" in text  # 0.1 * 4.3027 / sqrt(3) = 0.248


def test_conclusions_are_sentences_that_say_no_more_than_the_interval() -> None:
    said = conclusions(comparison(RESULTS, ["none", "builtin", "ima"]))
    assert said[0] == "builtin against none: no evidence (+1.00 mAP50-95, 95% interval +1.00 to +1.00, 3 pairs)."
    assert said[1] == "ima is better than none (+2.00 mAP50-95, 95% interval +1.75 to +2.25, 3 pairs)."
    assert len(said) == 3
    noisy = [*RESULTS[:6], *(result("ima", seed, score) for seed, score in enumerate((0.40, 0.53, 0.61)))]
    assert "ima against none: no evidence (" in conclusions(comparison(noisy, ["none", "ima"]))[0]
    worse = [*RESULTS[:6], *(result("ima", seed, 0.3 + 0.101 * seed) for seed in range(3))]
    assert conclusions(comparison(worse, ["none", "ima"]))[0].startswith("ima is worse than none (-9.90")
    single = conclusions(comparison([one for one in RESULTS if one["seed"] == 0], ["none", "ima"]))
    assert "no evidence either way, since one seed gives no interval (+2.00" in single[0]


def test_what_makes_pairs_unlike_is_named() -> None:
    mixed = [{**one, "device": "cpu", "code": {"torch": "2"}, "resumed": []} for one in RESULTS]
    assert same_conditions(mixed) == []
    mixed[0] = {**mixed[0], "device": "H200"}
    mixed[1] = {**mixed[1], "code": {"torch": "3"}}
    mixed[2] = {**mixed[2], "resumed": [3], "data_digest": "", "initial_digest": ""}
    assert same_conditions(mixed) == [
        "seed 0: the arms differ in their device",
        "the results come from 2 versions of code or packages",
        "stopped and resumed, so not equal bit for bit to unbroken trainings: none-seed2",
    ]


def test_an_arm_without_results_has_no_row() -> None:
    assert [row["arm"] for row in comparison(RESULTS, ["none", "mgd", "ima"])] == ["none", "ima"]


def test_arms_that_saw_other_images_are_reported() -> None:
    assert same_conditions(RESULTS) == []
    ran = [{**one, "in_force": {"ima_teacher_runtime": "bf16" if one["seed"] else "onnx"}} for one in RESULTS]
    assert same_conditions(ran) == [], "each pair is alike"
    chosen = {"settings": {"ima_teacher_runtime": "torch"}, "in_force": {"ima_teacher_runtime": "torch"}}
    assert same_conditions([*ran[1:], {**ran[0], **chosen}]) == [], "an arm may say how"
    ran[0]["in_force"] = {"ima_teacher_runtime": "torch"}
    assert same_conditions(ran) == ["seed 0: the arms' teachers ran in different ways (onnx, torch)"]
    odd = [*RESULTS, result("cwd", 1, 0.5, images="b")]
    assert same_conditions(odd) == ["seed 1: the arms differ in their images"]


def test_figures_that_are_alike_for_another_reason_are_told() -> None:
    assert nothing_to_compare([]) == []
    assert nothing_to_compare(RESULTS) == []
    nothing = [{**one, "map50_95": 0.00001 * number} for number, one in enumerate(RESULTS[:4])]
    assert nothing_to_compare(nothing) == [
        "no training has found anything yet, so that no arm is better says nothing: train for longer"
    ]
    twins = [
        {"arm": arm, "seed": seed, "map50_95": 0.4 + 0.1 * seed} for arm in ("none", "ima", "x") for seed in (0, 1)
    ]
    twins[-1]["map50_95"] += 1e-9
    assert nothing_to_compare(twins) == [
        "none, ima ended with the same figures to the last digit: they were trained alike"
    ]


def test_the_interval_over_comparisons_is_of_their_means() -> None:
    of_seeds = [paired(dict(enumerate(scores)), dict.fromkeys(range(3), 0.0)) for scores in ((1, 2, 3), (0, 1, 2))]
    mean = over_comparisons([one for one in of_seeds if one])
    assert mean is not None
    assert mean.differences == (2, 1)
    assert (mean.mean, mean.low, mean.high) == pytest.approx((1.5, 1.5 - 12.706 / 2, 1.5 + 12.706 / 2), abs=1e-3)
    assert over_comparisons([one for one in of_seeds[:1] if one]) is None
