from __future__ import annotations

import math

import pytest
import torch

from ima_yolo.weighting import AutoWeight, FixedWeight, Watch, gradient_norm, schedule


@pytest.mark.parametrize(
    ("kind", "progress", "off", "factor"),
    [
        ("constant", 0.0, 0.0, 1.0),
        ("constant", 0.99, 0.0, 1.0),
        ("constant", 0.5, 0.5, 0.0),
        ("constant", 0.49, 0.5, 1.0),
        ("linear", 0.25, 0.0, 0.75),
        ("linear", 0.25, 0.5, 0.5),
        ("cosine", 0.0, 0.0, 1.0),
        ("cosine", 0.5, 0.0, 0.5),
        ("cosine", 0.4, 0.2, 0.5),
        ("cosine", 0.9, 0.2, 0.0),
    ],
)
def test_schedule(kind: str, progress: float, off: float, factor: float) -> None:
    assert schedule(kind, progress, off) == pytest.approx(factor)


def test_the_last_tenth_of_ten_epochs_is_one_epoch() -> None:
    on = [schedule("constant", epoch / 10, 0.1) for epoch in range(10)]
    assert on == [1.0] * 9 + [0.0]


def test_gradient_norm_by_hand() -> None:
    maps = [torch.tensor([[[[1.0, 2.0]]]], requires_grad=True), torch.tensor([[[[2.0]]]], requires_grad=True)]
    loss = (maps[0] * 2).sum() + maps[1].square().sum()  # gradients (2, 2) and 4
    assert gradient_norm(loss, maps) == pytest.approx(math.sqrt(4 + 4 + 16))
    loss.backward()  # the graph is kept


def test_gradient_norm_of_what_does_not_reach_the_maps() -> None:
    maps = [torch.ones(1, 1, 1, 1, requires_grad=True)]
    elsewhere = torch.ones(1, requires_grad=True)
    assert gradient_norm(elsewhere.sum(), maps) == 0.0
    assert gradient_norm(torch.tensor(1.0), maps) == 0.0


def test_gradient_norm_survives_half_precision() -> None:
    maps = [torch.ones(1, 1, 1, 1, dtype=torch.float16, requires_grad=True)]
    loss = maps[0].float().sum() * 1e-8  # float16 ends at 6e-8: unscaled, this gradient would be 0
    assert gradient_norm(loss, maps) == pytest.approx(1e-8, rel=0.01)


def losses(task: float, term: float) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    maps = [torch.ones(1, 1, 1, 1, requires_grad=True)]
    return maps[0].sum() * task, maps[0].sum() * term, maps


def test_auto_weight_sets_the_ratio_of_gradients() -> None:
    weight = AutoWeight(ratio=0.5)
    task, term, maps = losses(6.0, 0.1)
    value = weight(task, term, maps)
    assert value == pytest.approx(30.0)
    assert gradient_norm(term * value, maps) == pytest.approx(0.5 * gradient_norm(task, maps))


def test_auto_weight_is_measured_now_and_then_and_smoothed_geometrically() -> None:
    weight = AutoWeight(ratio=1.0, every=2, momentum=0.5)
    assert weight(*losses(1.0, 1.0)) == pytest.approx(1.0)
    assert weight(*losses(100.0, 1.0)) == pytest.approx(1.0), "not measured in the second step"
    assert weight(*losses(100.0, 1.0)) == pytest.approx(10.0), "halfway between 1 and 100 on a log scale"


def test_the_weight_does_not_answer_to_a_mean_over_fewer_images() -> None:
    torch.manual_seed(0)
    maps = [torch.randn(400, 1, 1, 1, requires_grad=True)]
    pull = torch.randn(400)
    task, by_image = maps[0].flatten() @ torch.randn(400) / 400, maps[0].flatten() * pull
    whole = AutoWeight(ratio=1.0)(task, by_image.mean(), maps)
    assert AutoWeight(ratio=1.0)(task, by_image[:100].mean(), maps, share=0.25) == pytest.approx(whole, rel=0.15)


@pytest.mark.parametrize("task", [0.0, float("nan"), float("inf")])
def test_auto_weight_ignores_a_measurement_that_means_nothing(task: float) -> None:
    weight = AutoWeight(ratio=1.0, every=1)
    assert weight(*losses(task, 1.0)) == 1.0
    assert weight(*losses(4.0, 2.0)) == pytest.approx(2.0)
    assert weight(*losses(task, 1.0)) == pytest.approx(2.0)


@pytest.mark.parametrize("resumed", [False, True])
def test_after_a_pause_the_weight_is_measured_anew_and_what_fails_leaves_the_old_one(resumed: bool) -> None:
    weight = AutoWeight(ratio=1.0, every=10, momentum=0.9)
    assert weight(*losses(4.0, 2.0)) == pytest.approx(2.0)
    weight.forget()
    assert weight.is_due
    assert weight(*losses(float("nan"), 1.0)) == pytest.approx(2.0), "not 1, which may be a thousand times too much"
    if resumed:
        weight, state = AutoWeight(ratio=1.0, every=10, momentum=0.9), weight.state()
        weight.load(state)
    assert weight.is_due, "again, until a measurement succeeds"
    assert weight(*losses(12.0, 2.0)) == pytest.approx(6.0), "not smoothed with what was before the pause"
    assert not weight.is_due


def test_auto_weight_goes_on_from_the_state_of_an_earlier_version() -> None:
    weight = AutoWeight(ratio=1.0)
    weight.load({"steps": 1, "value": 2.0})
    assert weight(*losses(5.0, 1.0)) == 2.0


def test_auto_weight_goes_on_from_its_state() -> None:
    first, second = AutoWeight(1.0, every=3), AutoWeight(1.0, every=3)
    for _ in range(4):
        first(*losses(5.0, 2.0))
    second.load(first.state())
    assert [first(*losses(9.0, 1.0)) for _ in range(4)] == [second(*losses(9.0, 1.0)) for _ in range(4)]


def test_fixed_weight_is_what_was_given() -> None:
    assert FixedWeight(2.5)(*losses(1.0, 7.0)) == 2.5
    assert FixedWeight(0.0)(*losses(1.0, 7.0)) == 0.0


def watched(terms: list[torch.Tensor], maps: list[torch.Tensor]) -> list[str]:
    watch = Watch("ima_loss", steps=len(terms))
    return [warning for term in terms if (warning := watch.see(term, maps))]


def test_watch_is_silent_about_a_term_that_teaches() -> None:
    maps = [torch.ones(1, 1, 1, 1, requires_grad=True)]
    assert watched([maps[0].sum() * factor for factor in (1.0, 2.0, 3.0)], maps) == []


@pytest.mark.parametrize(
    ("factors", "attached", "fault"),
    [((0.0, 0.0), True, "was zero"), ((1.0, 1.0), True, "did not change"), ((1.0, 2.0), False, "no gradient")],
)
def test_watch_names_the_fault(factors: tuple[float, ...], attached: bool, fault: str) -> None:
    maps = [torch.ones(1, 1, 1, 1, requires_grad=True)]
    terms = [(maps[0].sum() if attached else torch.ones(1, requires_grad=True).sum()) * factor for factor in factors]
    (warning,) = watched(terms, maps)
    assert fault in warning
    assert "ima_loss" in warning


def test_a_batch_without_objects_at_the_end_is_no_fault() -> None:
    maps = [torch.ones(1, 1, 1, 1, requires_grad=True)]
    terms = [maps[0].sum() * factor for factor in (1.0, 2.0, 0.0, 3.0)]
    watch = Watch("ima_loss", steps=3)
    assert [watch.see(term, maps) for term in terms] == [None] * 4


def test_maps_of_frozen_layers_count_for_nothing() -> None:
    trained, frozen = torch.ones(1, 1, 1, 1, requires_grad=True), torch.ones(1, 1, 1, 1)
    loss = trained.sum() * 3 + frozen.sum()
    assert gradient_norm(loss, [trained, frozen]) == pytest.approx(3.0)
    assert gradient_norm(loss, [frozen]) == 0.0


def test_watch_reports_a_fault_once_but_looks_again() -> None:
    maps = [torch.ones(1, 1, 1, 1, requires_grad=True)]
    watch = Watch("ima_loss", steps=2)
    zero, moving = maps[0].sum() * 0, [maps[0].sum() * 5, maps[0].sum() * 5]
    assert [bool(watch.see(zero, maps)) for _ in range(4)] == [False, True, False, False]
    watch.restart()
    assert [bool(watch.see(zero, maps)) for _ in range(2)] == [False, False], "the same fault is not said again"
    watch.restart()
    assert [bool(watch.see(term, maps)) for term in moving] == [False, True]


def test_watch_spans_epochs_that_are_shorter_than_it() -> None:
    maps = [torch.ones(1, 1, 1, 1, requires_grad=True)]
    watch = Watch("ima_loss", steps=4)
    said = []
    for _ in range(2):
        watch.restart()
        said += [watch.see(maps[0].sum() * 0, maps) for _ in range(2)]
    assert [bool(warning) for warning in said] == [False, False, False, True]


def test_of_several_processes_the_weight_asks_the_others_and_the_watch_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A step that one process leaves out puts its watch behind the others': a question to all would wait for ever."""
    asked: list[torch.Tensor] = []
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 1)
    monkeypatch.setattr("torch.distributed.all_reduce", asked.append)
    level = torch.ones(1, 2, 4, 4, requires_grad=True)
    watch = Watch("x", steps=3)
    for step in range(3):
        watch.see(level.square().sum() * (1 + step), [level])
    assert asked == []
    AutoWeight(0.1)(level.sum(), level.square().sum(), [level])
    assert len(asked) == 2
