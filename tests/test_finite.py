"""Numbers that go wrong: a step goes on without the term, or the training ends with its name and level."""

from __future__ import annotations

import math
from typing import Any, cast

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from ima_yolo.align import box_instances, standardize
from ima_yolo.criterion import Criterion, HeadTerms, Panel
from ima_yolo.distill import Distiller
from ima_yolo.errors import IMAError
from ima_yolo.features import Features, Predictions
from ima_yolo.finite import Guard, Suspects
from ima_yolo.losses import CWDLoss, IMALoss, L2Loss, MGDLoss, PKDLoss
from ima_yolo.losses.head import box_loss, score_loss
from ima_yolo.masks import Regions, mask_frequency, mask_spatial
from ima_yolo.teachers import TeacherOutput
from ima_yolo.weighting import AutoWeight, FixedWeight

STRIDES = (8, 16)


class Shown:
    """A teacher that shows the maps that it is given."""

    name, strides, predicts = "shown", STRIDES, False

    def __init__(self, maps: Features) -> None:
        self.maps = maps

    def __call__(self, *_: Any) -> TeacherOutput:
        return TeacherOutput(self.maps, predictions=getattr(self, "said", None))


def maps(seed: int, gradient: bool = False) -> Features:
    generator = torch.Generator().manual_seed(seed)
    made = [torch.randn(2, 4, 64 // stride, 64 // stride, generator=generator) for stride in STRIDES]
    return Features(tuple(level.requires_grad_(gradient) for level in made), STRIDES)


def distiller(teacher: Features, weight: Any = None) -> Distiller:
    torch.manual_seed(0)
    panel = Panel([Criterion({stride: IMALoss(4, 4) for stride in STRIDES})], (1.0,))
    return Distiller([Shown(teacher)], panel, weight or FixedWeight(1.0), torch.Generator())  # type: ignore[list-item]


def step(made: Distiller, student: Features, said: Predictions | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    batch = {"img": torch.zeros(2, 3, 64, 64), "bboxes": torch.zeros(0, 4), "batch_idx": torch.zeros(0)}
    task = sum(level.mean() for level in student.maps)
    return made(batch, student, task, lambda: said or Predictions(torch.zeros(0), torch.zeros(0)))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("side", ["student", "teacher shown"])
@pytest.mark.parametrize("level", [0, 1])
def test_a_map_that_is_no_number_costs_a_step_and_is_named(
    bad: float, side: str, level: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("ima_yolo.finite.LOGGER.warning", said.append)
    teacher, student = maps(0), maps(1, gradient=True)
    broken = (student if side == "student" else teacher).maps[level]
    with torch.no_grad():
        broken[0, 1, 2, 3] = bad
    made = distiller(teacher, AutoWeight(0.1))
    total, named = step(made, student)
    assert float(total) == float(named["ima_loss"]) == 0.0
    assert len(said) == 1
    who = f"the {side}" if side == "student" else side
    assert said[0].startswith("ima_loss is NaN or infinite")
    assert said[0].endswith(f"the map of {who} at stride {STRIDES[level]} is not finite")
    step(made, student)
    assert len(said) == 1, "said once"
    with torch.no_grad():
        broken[0, 1, 2, 3] = 0.0
    total, _ = step(made, student)
    assert float(total.detach()) > 0
    total.backward()
    assert all(bool(level.grad.isfinite().all()) for level in student.maps if level.grad is not None)


@pytest.mark.parametrize("mask", ["spatial", "frequency"])
def test_a_batch_without_images_adds_nothing_and_is_no_fault(mask: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("ima_yolo.finite.LOGGER.warning", said.append)
    none = Features(tuple(level[:0].requires_grad_() for level in maps(1).maps), STRIDES)
    panel = Panel([Criterion({stride: IMALoss(4, 4, mask=mask) for stride in STRIDES})], (1.0,))
    shown: Any = Shown(Features(tuple(level[:0] for level in maps(0).maps), STRIDES))
    made = Distiller([shown], panel, AutoWeight(0.1), torch.Generator())
    batch = {"img": torch.zeros(0, 3, 64, 64), "bboxes": torch.zeros(0, 4), "batch_idx": torch.zeros(0)}
    for _ in range(60):
        total, named = made(batch, none, torch.zeros(()), lambda: Predictions(torch.zeros(0), torch.zeros(0)))
        assert float(total) == float(named["ima_loss"]) == 0.0
    assert said == []


def test_a_term_that_stays_no_number_ends_the_training() -> None:
    teacher = maps(0)
    teacher.maps[1][0] = math.nan
    made = distiller(teacher)
    made._guard = Guard(patience=3)
    for _ in range(2):
        step(made, maps(1))
    with pytest.raises(
        IMAError, match=r"ima_loss was NaN or infinite in 3 steps in a row: .* teacher shown at stride 16"
    ):
        step(made, maps(1))


def test_spoilt_adapters_are_left_to_the_recovery_from_the_last_checkpoint() -> None:
    made = distiller(maps(0))
    with torch.no_grad():
        next(made.criterion.parameters()).fill_(math.nan)
    made._guard = Guard(patience=1)
    total, _ = step(made, maps(1))
    assert not bool(total.isfinite())


def test_steps_in_between_start_the_count_again() -> None:
    guard = Guard(patience=2)
    for value in (math.nan, 1.0, math.inf, 0.0, math.nan):
        assert list(guard.passing({"x": torch.tensor(value)}, str)) == ["x"] * math.isfinite(value)
    with pytest.raises(IMAError):
        guard.passing({"x": torch.tensor(math.nan)}, str)


def test_what_goes_wrong_later_is_said_too_and_again_after_many_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("ima_yolo.finite.LOGGER.warning", said.append)
    guard = Guard()
    for step in range(2 * 100 + 1):
        guard.passing({"x": torch.tensor(math.nan if step % 2 else 1.0)}, lambda _: "the reason")
    assert said == [
        "x is NaN or infinite and left out of such steps: the reason",
        "x is NaN or infinite and left out of such steps (100 so far): the reason",
    ]


def test_finite_maps_that_overflow_are_told_from_broken_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("ima_yolo.finite.LOGGER.warning", said.append)
    teacher, student = maps(0), maps(1)
    teacher.maps[0][0, 0, 0, 0] = 3e38
    panel = Panel([Criterion({stride: L2Loss(4, 4) for stride in STRIDES})], (1.0,))
    step(Distiller([Shown(teacher)], panel, FixedWeight(1.0), torch.Generator()), student)  # type: ignore[list-item]
    assert said[0].endswith(
        "the loss against shown at stride 8 is not finite, though all maps are finite; the largest value, 3e+38, is of "
        "teacher shown at stride 8"
    )


def test_a_sound_run_is_left_alone() -> None:
    """The guard reads a term; it changes none."""
    teacher, student = maps(0), maps(1, gradient=True)
    total, named = step(distiller(teacher), student)
    made = distiller(teacher)
    direct = made.criterion(student, [teacher], [Regions(torch.zeros(0, 5), {})])
    assert torch.equal(total, named["ima_loss"])
    made._guard = Guard(patience=1)
    assert torch.equal(step(made, student)[0].isfinite(), direct.isfinite())


class _Steep(torch.autograd.Function):
    """A value that is finite, and whose gradient is not."""

    @staticmethod
    def forward(ctx: Any, level: Tensor, slope: float) -> Tensor:
        ctx.slope = slope
        return level.square().sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        made = gradients[0].new_full((2, 4, 64 // 8, 64 // 8), 1.0)
        made[1, 2, 3, 4] = ctx.slope
        return made * gradients[0], None


def steep(made: Distiller, slope: float, before: bool) -> None:
    """Give stride 8 a gradient that is no number at the student's map, behind the adapter or without it."""
    levels: Any = made.criterion.members[0]
    level = levels.levels["8"]
    if before:
        level.forward = lambda student, *_: _Steep.apply(student, slope)
    else:
        level.fused = False  # whose adapter is applied to the map
        level.compare = lambda aligned, *_: _Steep.apply(aligned, slope)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("before", [True, False], ids=["at the map", "behind the adapter"])
def test_a_gradient_that_is_no_number_is_left_out_and_named(
    bad: float, before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("ima_yolo.finite.LOGGER.warning", said.append)
    student, made = maps(1, gradient=True), distiller(maps(0))
    steep(made, bad, before)
    total, named = step(made, student)
    assert math.isfinite(float(named["ima_loss"]))
    total.backward()
    assert said == [], "not known before the next step"
    assert student.maps[0].grad is not None
    assert student.maps[1].grad is not None
    assert float(student.maps[0].grad.abs().sum()) == 0.0
    assert bool(student.maps[1].grad.isfinite().all())
    assert float(student.maps[1].grad.abs().sum()) > 0, "the other level teaches"
    weights = [weight.grad for weight in made.criterion.parameters() if weight.grad is not None]
    assert weights
    assert all(bool(gradient.isfinite().all()) for gradient in weights)
    step(made, student)
    names = {"ima_loss at stride 8"} if before else {"ima_loss at stride 8", "ima_loss at the adapter of stride 8"}
    assert set(said) == {f"the gradient of {name} is NaN or infinite and left out of such steps" for name in names}


def test_a_gradient_that_stays_no_number_ends_the_training() -> None:
    made = distiller(maps(0))
    made._guard.patience = 3
    steep(made, math.nan, before=True)
    for _ in range(3):
        step(made, maps(1, gradient=True))[0].backward()
    with pytest.raises(IMAError, match=r"the gradient of ima_loss at stride 8 was NaN or infinite in 3 steps in a row"):
        step(made, maps(1, gradient=True))


def test_gradients_in_between_start_the_count_again() -> None:
    made = distiller(maps(0))
    made._guard.patience = 2
    for slope in (math.nan, 1.0, math.inf, 2.0):
        steep(made, slope, before=True)
        step(made, maps(1, gradient=True))[0].backward()
    step(made, maps(1, gradient=True))


def test_the_scaler_of_mixed_precision_sees_what_overflows(monkeypatch: pytest.MonkeyPatch) -> None:
    """It skips the step and lowers its scale, which it could not if zeros stood there; so nothing is said of that."""
    said: list[str] = []
    monkeypatch.setattr("ima_yolo.finite.LOGGER.warning", said.append)
    guard = Guard(patience=3)
    for count in range(3):
        half = torch.ones(1, 2, 8, 8, dtype=torch.float16, requires_grad=True)
        (level,) = guard.of_maps("x", Features((half,), (8,))).maps
        (level * 300.0).square().float().sum().backward()
        assert half.grad is not None
        assert not bool(half.grad.isfinite().all())
        if count < 2:
            assert guard.passing({}, str) == {}
    with pytest.raises(IMAError, match=r"the gradient of x at stride 8 was NaN or infinite in 3 steps in a row"):
        guard.passing({}, str)
    assert said == []


def test_half_precision_finds_its_scale_and_then_learns() -> None:
    """With the scaler of torch, which begins far too high: steps are skipped until nothing overflows."""
    torch.manual_seed(0)
    student, teacher = torch.nn.Conv2d(3, 4, 3, 8, 1), Features((maps(0).maps[0],), (8,))
    panel: Any = Panel([Criterion({8: IMALoss(4, 4)})], (1.0,))
    shown: Any = Shown(teacher)
    made = Distiller([shown], panel, FixedWeight(1.0), torch.Generator())
    optimizer = torch.optim.SGD([*student.parameters(), *panel.parameters()], lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**30)
    first, images = student.weight.detach().clone(), torch.rand(2, 3, 64, 64)
    for count in range(40):
        with torch.autocast("cpu", torch.float16):
            level = student(images)
            assert level.dtype == torch.float16
            loss = step(made, Features((level,), (8,)))[0]
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        if count == 0:
            assert torch.equal(student.weight, first), "the first step overflows and is skipped"
    assert scaler.get_scale() < 2.0**30
    assert not torch.equal(student.weight, first)
    assert all(bool(weight.isfinite().all()) for weight in (*student.parameters(), *panel.parameters()))


@pytest.mark.parametrize("part", ["scores", "boxes"])
@pytest.mark.parametrize("cell", [0, 64, 79])
def test_a_gradient_at_the_head_is_named_with_its_level(part: str, cell: int) -> None:
    """Of 8 x 8 cells at stride 8 and 4 x 4 at stride 16."""
    guard, seen = Guard(patience=1), maps(1)
    said = Predictions(torch.zeros(2, 80, 3, requires_grad=True), torch.zeros(2, 80, 4, requires_grad=True))
    watched = guard.of_predictions(("cls", "box"), said, seen)
    slope = torch.zeros(2, 80, 1)
    slope[1, cell] = math.nan
    (getattr(watched, part) * slope).sum().backward()
    assert float(getattr(said, part).grad.abs().sum()) == 0.0
    name = {"scores": "cls", "boxes": "box"}[part]
    with pytest.raises(IMAError, match=rf"the gradient of {name} at stride {8 if cell < 64 else 16} was NaN"):
        guard.passing({}, str)


def test_a_step_keeps_such_gradients_out_of_the_heads_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def steep_scores(student: Tensor, teacher: Tensor) -> Tensor:
        flat = student[0, 70].sum()
        return student.sum() + (flat - flat.detach()).sqrt()  # 0, with an infinite slope

    monkeypatch.setattr("ima_yolo.criterion.score_loss", steep_scores)
    panel, shown = distiller(maps(0)).criterion, cast(Any, Shown(maps(0)))
    made = Distiller([shown], panel, FixedWeight(1.0), torch.Generator(), heads=[HeadTerms(1.0, 1.0, [(0, 0)])])
    shown.said = Predictions(torch.zeros(2, 80, 1), torch.rand(2, 80, 4).cumsum(2))
    scores, boxes = torch.zeros(2, 80, 1, requires_grad=True), torch.rand(2, 80, 4).cumsum(2).requires_grad_()
    total, _ = step(made, maps(1, gradient=True), Predictions(scores, boxes))
    total.backward()
    assert scores.grad is not None
    assert boxes.grad is not None
    assert float(scores.grad.abs().sum()) == 0.0
    assert float(boxes.grad.abs().sum()) > 0
    made._guard.patience = 1
    with pytest.raises(IMAError, match="the gradient of kdcls_loss at stride 16"):
        step(made, maps(1, gradient=True), Predictions(scores, boxes))


@pytest.mark.parametrize("side", ["student", "teacher shown"])
@pytest.mark.parametrize("part", ["scores", "boxes"])
def test_a_term_on_the_heads_is_blamed_on_a_head(side: str, part: str) -> None:
    sides = {name: Predictions(torch.zeros(2, 80, 3), torch.zeros(2, 80, 4)) for name in ("student", "teacher shown")}
    getattr(sides[side], part)[0, 70] = math.inf
    suspects = Suspects(maps(1), sides["student"], [("shown", maps(0), sides["teacher shown"])], STRIDES, [])
    who = "the student" if side == "student" else side
    assert suspects.explain(is_of_maps=False) == f"the {part} of {who} at stride 16 are not finite"


def test_a_step_reads_the_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many terms and gradients there are; each read makes a GPU wait."""
    guard, reads = Guard(), []
    original = Tensor.tolist
    monkeypatch.setattr(Tensor, "tolist", lambda self: reads.append(self) or original(self))
    monkeypatch.setattr(Tensor, "__bool__", lambda self: reads.append(self) or self.item())
    for _ in range(3):
        student = maps(1, gradient=True)
        watched = guard.of_maps("x", student)
        terms = {str(number): level.square().mean() for number, level in enumerate(watched.maps)}
        sum(guard.passing(terms, str).values(), start=torch.zeros(())).backward()
    assert len(reads) == 3


PROFILE = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
SIZES = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 7), st.integers(1, 7))
DTYPES = st.sampled_from([torch.float32, torch.float16, torch.bfloat16])
SCALES = st.sampled_from([0.0, 1e-30, 1e-8, 1e-3, 1.0, 1e3, 6e4])  # 6e4: the edge of half precision
KINDS = st.sampled_from(["noise", "constant", "spike", "equal channels"])


def drawn(size: tuple[int, ...], kind: str, scale: float, dtype: torch.dtype, seed: int) -> Tensor:
    """A map of one of the kinds on which means and variances go wrong."""
    noise = torch.rand(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1
    if kind == "constant":
        noise = torch.ones(size, dtype=torch.float64)
    elif kind == "spike":
        noise = torch.zeros(size, dtype=torch.float64)
        noise[..., 0, 0] = 1.0
    elif kind == "equal channels":
        noise = noise[:, :1].expand(size).clone()
    return (noise * scale).to(dtype)


LOSSES: dict[str, Any] = {
    "l2": lambda own, other, ratio: L2Loss(own, other, True),
    "pkd": lambda own, other, ratio: PKDLoss(own, other, True),
    "cwd": lambda own, other, ratio: CWDLoss(own, other, True),
    "mgd": lambda own, other, ratio: MGDLoss(own, other, True, ratio),
    **{
        f"ima {deflation} {standardized} {mask}": lambda own, other, ratio, d=deflation, s=standardized, m=mask: (
            IMALoss(own, other, mask=m, mask_ratio=ratio, standardized=s, deflation=d, restore="light")
        )
        for deflation in ("weight", "shifted", "floor", "cosine", "none")
        for standardized, mask in (("both", "spatial"), ("student", "frequency"))
    },
}


@settings(PROFILE, max_examples=400)
@given(
    size=SIZES,
    kinds=st.tuples(KINDS, KINDS),
    scales=st.tuples(SCALES, SCALES),
    dtypes=st.tuples(DTYPES, DTYPES),
    ratio=st.sampled_from([0.0, 0.5, 0.999999]),
    name=st.sampled_from(sorted(LOSSES)),
    width=st.integers(1, 5),
)
def test_losses_of_finite_maps_are_finite_and_so_are_their_gradients(
    size: tuple[int, int, int, int],
    kinds: tuple[str, str],
    scales: tuple[float, float],
    dtypes: tuple[torch.dtype, torch.dtype],
    ratio: float,
    name: str,
    width: int,
) -> None:
    """Zero variance, one position, every position masked, half precision at its edge, and any mixture of them."""
    batch, channels, height, rows = size
    torch.manual_seed(0)
    loss = LOSSES[name](channels, width, ratio)
    student = drawn(size, kinds[0], scales[0], dtypes[0], 1).requires_grad_()
    teacher = drawn((batch, width, height, rows), kinds[1], scales[1], dtypes[1], 2)
    half = student.dtype if student.dtype in (torch.float16, torch.bfloat16) else None
    with torch.autocast("cpu", half, enabled=half is not None):  # as maps of half precision come in a training
        term = loss(student, teacher, 8, Regions(torch.zeros(0, 5), {}))
    assert term.dtype == torch.float32
    # of half precision the adapter itself overflows at this scale, or the gradient: the part of guard and scaler
    overflow = student.dtype == torch.float16 and max(scales) >= 1e3
    assert overflow or bool(term.isfinite()), term
    term.backward()
    assert student.grad is not None
    found = [student.grad, *(weight.grad for weight in loss.parameters() if weight.grad is not None)]
    assert overflow or all(bool(gradient.isfinite().all()) for gradient in found)


@PROFILE
@given(size=SIZES, kind=KINDS, scale=SCALES, dtype=DTYPES)
def test_standardized_features_are_bounded(size: tuple[int, ...], kind: str, scale: float, dtype: torch.dtype) -> None:
    """A value lies at most sqrt(P - 1) deviations from the mean of P."""
    found = standardize(drawn(size, kind, scale, dtype, 0))
    assert bool(found.isfinite().all())
    assert float(found.abs().max()) <= math.sqrt(max(1, size[2] * size[3] - 1)) + 1e-3
    assert float(found.mean(dim=(2, 3)).abs().max()) <= 1e-3 * max(1.0, math.sqrt(size[2] * size[3]))


@PROFILE
@given(size=SIZES, ratio=st.floats(0, 0.999), seed=st.integers(0, 9), dtype=DTYPES)
def test_masks_keep_or_hide(size: tuple[int, ...], ratio: float, seed: int, dtype: torch.dtype) -> None:
    features = drawn(size, "noise", 1.0, dtype, 3)
    hidden = mask_spatial(features, ratio, torch.Generator().manual_seed(seed))
    assert hidden.shape == features.shape
    assert hidden.dtype == features.dtype
    assert bool(((hidden == features) | (hidden == 0)).all())
    shared = (hidden != 0).any(dim=1, keepdim=True)
    assert bool(((hidden == features) | ~shared).all()), "hidden in all channels or in none"
    assert bool(mask_frequency(features, ratio, torch.Generator().manual_seed(seed)).isfinite().all())
    assert torch.allclose(mask_frequency(features, 0.0).double(), features.double(), atol=2e-2)


@PROFILE
@given(count=st.integers(0, 4), low=st.floats(-1e4, 1e4), span=st.floats(0, 1e4), scale=SCALES)
def test_boxes_of_any_size_and_place_give_finite_instances(count: int, low: float, span: float, scale: float) -> None:
    boxes = torch.tensor([[0.0, low, low, low + span, low + span]]).repeat(count, 1)
    features = drawn((1, 3, 4, 4), "noise", scale, torch.float32, 0)
    found = box_instances(features, boxes, 8, 7)
    assert found.shape == (count, 3, 7, 7)
    assert bool(found.isfinite().all())


@pytest.mark.parametrize("instance", ["box", "region", "image"])
@pytest.mark.parametrize("objects", ["none", "gt"])
def test_images_without_objects_give_zero_or_a_number(instance: str, objects: str) -> None:
    if instance != "image" and objects == "gt":
        pytest.skip("refused by the settings")
    loss = IMALoss(4, 4, instance=instance, objects=objects, standardized="both")
    student = torch.randn(2, 4, 8, 8, requires_grad=True)
    nowhere = torch.full((2, 64, 64), 255)
    term = loss(student, torch.randn(2, 4, 8, 8), 8, Regions(torch.zeros(0, 5), {}, nowhere))
    assert bool(term.isfinite())
    term.backward()
    assert student.grad is not None
    assert bool(student.grad.isfinite().all())
    if instance != "image" or objects == "gt":
        assert float(term.detach()) == 0.0


@PROFILE
@given(cells=st.integers(0, 5), scale=st.sampled_from([0.0, 1.0, 50.0, 1e4]), batch=st.integers(1, 2))
def test_terms_on_the_heads_are_finite(cells: int, scale: float, batch: int) -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(batch, cells, 3, generator=generator) * scale for _ in range(2))
    student.requires_grad_()
    near, far = torch.rand(batch, cells, 2, generator=generator), torch.rand(batch, cells, 2, generator=generator)
    boxes = torch.cat([near * scale, (near + far) * scale], dim=2).requires_grad_()
    total = score_loss(student, teacher) + box_loss(boxes, boxes.detach().flip(1), torch.ones(batch, cells))
    assert bool(total.isfinite())
    total.backward()
    for value in (student, boxes):
        assert value.grad is not None
        assert bool(value.grad.isfinite().all())
