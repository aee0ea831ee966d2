from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from ima_yolo.assembly import build_distiller
from ima_yolo.config import Settings
from ima_yolo.criterion import build_criterion
from ima_yolo.features import Features, Predictions
from ima_yolo.host import UNLABELLED
from ima_yolo.labels import boxes_of, regions_of, some_images
from ima_yolo.losses import IMALoss, box_loss, score_loss
from ima_yolo.masks import Regions, mask_frequency, mask_spatial
from ima_yolo.teachers import TeacherOutput
from ima_yolo.teachers.view import fit
from ima_yolo.weighting import gradient_norm

SHAPES = {8: (4, 6), 16: (8, 12)}  # stride -> channels of student and teacher


class Teacher:
    """Shows fixed maps and counts how often it is asked."""

    name, strides, channels, class_names = "fixed", (8, 16), (6, 12), {0: "a", 1: "b"}
    input_channels, predicts = 3, False

    def __init__(self) -> None:
        self.calls = 0
        generator = torch.Generator().manual_seed(1)
        self.maps = tuple(
            torch.randn(2, SHAPES[stride][1], 64 // stride, 64 // stride, generator=generator) for stride in SHAPES
        )

    def to(self, device: torch.device) -> Teacher:
        return self

    def digest(self) -> str:
        return ""

    def __call__(self, images: torch.Tensor, *asked: bool) -> TeacherOutput:
        self.calls += 1
        return TeacherOutput(Features(tuple(level[: len(images)] for level in self.maps), self.strides))


def student_maps() -> Features:
    generator = torch.Generator().manual_seed(2)
    maps = [torch.randn(2, SHAPES[stride][0], 64 // stride, 64 // stride, generator=generator) for stride in SHAPES]
    return Features(tuple(level.requires_grad_() for level in maps), tuple(SHAPES))


def batch() -> dict[str, torch.Tensor]:
    boxes = torch.tensor([[0.5, 0.5, 0.5, 0.25], [0.25, 0.75, 0.5, 0.5]])
    labels = {"bboxes": boxes, "cls": torch.zeros(2, 1), "batch_idx": torch.tensor([0.0, 1.0])}
    return {"img": torch.zeros(2, 3, 64, 64), **labels}


def build(teacher: Teacher | None = None, **settings: Any) -> Any:
    chosen = Settings(teacher="t.pt", **settings)
    teachers = [fit(teacher or Teacher(), tuple(SHAPES))]
    return build_distiller(chosen, teachers, student_maps(), torch.device("cpu"), seed=0)


def step(distiller: Any, student: Features | None = None) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    student = student or student_maps()
    return distiller(batch(), student, student.maps[0].sum() + student.maps[1].sum(), lambda: None)


def test_boxes_are_in_pixels_of_an_image_that_is_no_square() -> None:
    wide = {**batch(), "img": torch.zeros(2, 3, 32, 64)}
    regions = regions_of(wide, TeacherOutput(Features((), ())))
    assert regions.boxes.tolist() == [[0, 16, 12, 48, 20], [1, 0, 16, 32, 32]]


def test_boxes_of_the_teacher_take_the_place_of_labels() -> None:
    own = torch.tensor([[0.0, 1, 2, 3, 4]])
    assert regions_of(batch(), TeacherOutput(Features((), ()), boxes=own)).boxes is own


def test_the_criterion_is_the_mean_over_levels() -> None:
    teacher, student = Teacher(), student_maps()
    rng = torch.Generator()
    channels = [{stride: pair[side] for stride, pair in SHAPES.items()} for side in (0, 1)]
    criterion = build_criterion(Settings(teacher="t.pt", ima_loss="l2"), (8, 16), *channels, rng, 0)
    regions = Regions(torch.zeros(0, 5), {})
    maps = Features(teacher.maps, teacher.strides)
    by_level = [criterion.levels[str(s)](student.at(s), maps.at(s), s, regions) for s in SHAPES]
    assert criterion(student, maps, regions).item() == pytest.approx((by_level[0] + by_level[1]).item() / 2)


def test_new_layers_repeat_with_the_seed_and_leave_the_global_stream_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = build()
    assert torch.equal(torch.rand(1), expected)
    for value, other in zip(first.parameters(), build().parameters(), strict=True):
        assert torch.equal(value, other)


@pytest.mark.parametrize(
    ("settings", "attributes"),
    [
        ({}, {"mask_ratio": 0.5, "standardized": "both", "deflation": "weight", "instance": "image", "finest": True}),
        ({"ima_mask_ratio": 0.2, "ima_standardize": "student"}, {"mask_ratio": 0.2, "standardized": "student"}),
        ({"ima_deflation": "floor", "ima_deflation_floor": 0.3}, {"deflation": "floor", "floor": 0.3}),
        ({"ima_mask": "frequency"}, {"mask": mask_frequency}),
        ({"ima_mask": "spatial"}, {"mask": mask_spatial}),
        ({"ima_mask": "none"}, {"mask": None}),
        ({"ima_instance": "box", "ima_box_size": 5}, {"instance": "box", "box_size": 5}),
        ({"ima_objects": "gt", "ima_background": 0.4}, {"objects": "gt", "background": 0.4}),
    ],
)
def test_every_setting_reaches_the_loss(settings: dict[str, Any], attributes: dict[str, Any]) -> None:
    loss = build(**settings).criterion.members[0].levels["8"]
    assert isinstance(loss, IMALoss)
    assert {name: getattr(loss, name) for name in attributes} == attributes


def test_only_the_finest_level_keeps_small_objects() -> None:
    levels = build(ima_instance="box").criterion.members[0].levels
    assert (levels["8"].finest, levels["16"].finest) == (True, False)


def test_the_temperature_and_the_ratio_reach_their_losses() -> None:
    assert build(ima_loss="cwd", ima_temperature=3).criterion.members[0].levels["8"].temperature == 3
    assert build(ima_loss="mgd", ima_mask_ratio=0.1).criterion.members[0].levels["8"].mask_ratio == 0.1


def test_the_term_is_weighted_and_pulls_on_the_student() -> None:
    distiller, student = build(ima_weight=2.0, ima_mask="none"), student_maps()
    plain = build(ima_weight=1.0, ima_mask="none")
    total, items = step(distiller, student)
    assert total.item() == pytest.approx(2 * step(plain)[0].item(), rel=1e-5)
    assert items["ima_loss"].item() == pytest.approx(total.item())
    total.backward()
    assert all(level.grad.abs().sum() > 0 for level in student.maps)


@pytest.mark.parametrize(("settings", "progress"), [({"ima_weight": 0}, 0.0), ({"ima_off": 0.5}, 0.5)])
def test_while_it_is_off_the_teacher_rests(settings: dict[str, Any], progress: float) -> None:
    teacher = Teacher()
    distiller = build(teacher, **settings)
    distiller.set_progress(progress)
    total, items = step(distiller)
    assert total.item() == 0.0
    assert items["ima_loss"].item() == 0.0
    assert teacher.calls == 0


class Predicting(Teacher):
    """Says of every cell what it says of the first."""

    predicts = True

    def __init__(self, shift: float = 0.3) -> None:
        super().__init__()
        self.shift = shift

    def __call__(self, images: torch.Tensor, *asked: bool) -> TeacherOutput:
        return TeacherOutput(super().__call__(images).features, predictions=said(len(images), self.shift))


def said(images: int, shift: float = 0.0) -> Predictions:
    generator = torch.Generator().manual_seed(3)
    corners = 20 * torch.rand(images, 5, 2, generator=generator)
    boxes = torch.cat([corners, corners + 10 + 20 * shift], dim=2)
    return Predictions(torch.randn(images, 5, 2, generator=generator) + shift, boxes.requires_grad_(shift == 0))


def with_heads(teachers: Sequence[Teacher] = (), compared: Sequence[bool] | None = None, **settings: Any) -> Any:
    teachers = teachers or [Predicting()]
    chosen = Settings(teacher=",".join(f"{index}.pt" for index in range(len(teachers))), **settings)
    views = [fit(teacher, tuple(SHAPES)) for teacher in teachers]
    of_data = {"names": {0: "a", 1: "b"}, "gains": {"cls": 0.5, "box": 7.5}}
    return build_distiller(chosen, views, student_maps(), torch.device("cpu"), seed=0, compared=compared, **of_data)


def terms_of(distiller: Any) -> dict[str, float]:
    _, items = distiller(batch(), student_maps(), torch.zeros(()), lambda: said(2))
    return {name: value.item() for name, value in items.items()}


def test_the_weights_of_the_terms_on_the_heads_count_in_units_of_the_task_s_gains() -> None:
    maps = student_maps()
    settings = {"ima_weight": 0.0}
    _, items = with_heads(ima_cls=3.0, ima_box=0.5, **settings)(batch(), maps, torch.zeros(()), lambda: said(2))
    seen = said(2, 0.3)
    assert items["kdcls_loss"].item() == pytest.approx(3 * 0.5 * score_loss(said(2).scores, seen.scores).item())
    expected = box_loss(said(2).boxes, seen.boxes, seen.scores.sigmoid().amax(2))
    assert items["kdbox_loss"].item() == pytest.approx(0.5 * 7.5 * expected.item())
    _, items = with_heads(ima_cls=3.0, ima_box=0.0, **settings)(batch(), maps, torch.zeros(()), lambda: said(2))
    assert set(items) == {"ima_loss", "kdcls_loss"}


class Asked(Predicting):
    """Says what it is told to, and notes whether its head was asked."""

    def __init__(self, logit: float) -> None:
        super().__init__()
        self.logit, self.asked = logit, []

    def __call__(self, images: torch.Tensor, *asked: bool) -> TeacherOutput:
        self.asked.append(asked[2])
        seen = sure_of(self.logit) if asked[2] else None
        return TeacherOutput(super().__call__(images).features, predictions=seen)


def sure_of(logit: float) -> Predictions:
    """Boxes in the place of the labels of `batch`, all with this score."""
    corners = boxes_of(batch())[:, None, 1:]
    return Predictions(torch.full((2, 1, 2), logit), corners.clone().requires_grad_())


def gated(*teachers: Asked, **settings: Any) -> Any:
    names, gains, device = {0: "a", 1: "b"}, {"cls": 0.5, "box": 7.5}, torch.device("cpu")
    chosen = Settings(**{"teacher": ",".join("t.pt" for _ in teachers), "ima_cls": 1.0, "ima_box": 1.0, **settings})
    views = [fit(teacher, tuple(SHAPES)) for teacher in teachers]
    return build_distiller(chosen, views, student_maps(), device, seed=0, names=names, gains=gains)


def run(distiller: Any, logit: float, steps: int) -> list[dict[str, float]]:
    found = []
    for _ in range(steps):
        maps = student_maps()
        _, items = distiller(batch(), maps, maps.maps[0].mean(), lambda: sure_of(logit))
        found.append({name: value.item() for name, value in items.items()})
    return found


@pytest.mark.parametrize("settings", [{}, {"ima_weight": 1.0}, {"ima_weight": 0.0}])
def test_an_overtaken_teacher_rests_and_is_looked_at_now_and_then(
    settings: dict[str, float], caplog: pytest.LogCaptureFixture
) -> None:
    teacher = Asked(-1.0)
    distiller = gated(teacher, **settings)
    first, *steps = run(distiller, 1.0, 11)
    assert teacher.asked == [True, True, True], "at the steps at which it is looked at"
    assert (first["kdcls_loss"], first["kdbox_loss"]) == (0, 0)
    assert (first["ima_loss"] > 0) == (settings != {"ima_weight": 0.0}), "what it is was not known before"
    assert all(value == 0 for items in steps for value in items.values())
    assert distiller.effective_weight == 0
    (line,) = [line for line in caplog.messages if "no longer counts" in line]
    assert "better than fixed does (0.73 against 0.27" in line


def test_a_teacher_that_gets_ahead_again_teaches_again() -> None:
    distiller = gated(teacher := Asked(-1.0), ima_loss="l2", ima_weight=1.0)
    assert run(distiller, 1.0, 5)[-1]["ima_loss"] == 0
    teacher.logit = 20.0
    steps = run(distiller, -20.0, 26)  # the old merits are forgotten slowly
    assert steps[0]["ima_loss"] == 0 < steps[-1]["ima_loss"]
    assert steps[-1]["kdcls_loss"] > 0


def test_features_fade_with_the_head_and_the_automatic_weight_does_not_undo_it() -> None:
    teacher, student = (1 / (1 + math.exp(-logit)) for logit in (1.0, 0.6))
    for settings in ({"ima_weight": 1.0}, {}):
        near, ungated = (
            run(gated(Asked(1.0), ima_loss="l2", ima_gate=gate, **settings), 0.6, 2)[1]["ima_loss"]
            for gate in (True, False)
        )
        assert near == pytest.approx(ungated * (teacher / student - 1) / 0.2, rel=1e-4)


def test_the_automatic_weight_is_measured_anew_after_a_pause() -> None:
    distiller = gated(teacher := Asked(2.0), ima_loss="l2")
    run(distiller, 0.0, 1)
    before = distiller.weight.value
    teacher.logit = -20.0
    run(distiller, 0.0, 30)
    assert distiller.weight.is_due
    teacher.logit = 20.0
    maps = student_maps()
    for _ in range(20):
        maps = student_maps()
        distiller(batch(), maps, 7 * maps.maps[0].mean(), lambda: sure_of(-20.0))
    assert distiller.weight.value == pytest.approx(7 * before, rel=1e-3), "the task's gradient is another one"


def test_images_without_labels_are_not_looked_at_while_the_teacher_rests() -> None:
    distiller, looks = gated(teacher := Asked(-1.0)), []
    with_others = {**batch(), UNLABELLED: batch()["img"]}
    for _ in range(11):
        maps = student_maps()
        others = lambda images, _: (looks.append(len(images)), student_maps(), sure_of(1.0))[1:]  # noqa: E731
        distiller(with_others, maps, maps.maps[0].mean(), lambda: sure_of(1.0), look=others)
    assert len(looks) == 1, "in the first step"
    assert teacher.asked == [True] * 4


def test_one_of_several_teachers_rests_alone() -> None:
    ahead, behind = Asked(2.0), Asked(-1.0)
    steps = run(gated(ahead, behind), 0.0, 11)
    assert (ahead.asked, behind.asked) == ([True] * 11, [True] * 3)
    assert all(items["ima_loss"] > 0 for items in steps)


def test_a_gate_that_sees_a_part_of_the_classes_says_nothing_of_features() -> None:
    teacher = Asked(-1.0)
    teacher.class_names = {0: "a"}
    steps = run(gated(teacher), 1.0, 11)
    assert teacher.asked == [True, *[False] * 4, True, *[False] * 4, True]
    assert all(items["kdcls_loss"] == items["kdbox_loss"] == 0 < items["ima_loss"] for items in steps)


def test_the_features_of_the_teachers_that_are_left_count_as_before() -> None:
    settings = {"ima_loss": "l2", "ima_weight": 1.0, "ima_teacher_shares": (3, 1)}
    both, ahead, behind = (
        run(gated(*teachers, **settings), 0.0, 2)[1]["ima_loss"]
        for teachers in ((Asked(2.0), Asked(2.0)), (Asked(2.0), Asked(-1.0)), (Asked(-1.0), Asked(2.0)))
    )
    assert (ahead, behind) == pytest.approx((0.75 * both, 0.25 * both), rel=1e-5)


def test_the_head_of_a_teacher_that_is_ahead_counts_and_fades_as_the_student_comes_near() -> None:
    ahead, near, ungated = (
        run(gated(Asked(1.0), **settings), logit, 1)[0]["kdcls_loss"]
        for logit, settings in ((-1.0, {}), (0.6, {}), (0.6, {"ima_gate": False}))
    )
    teacher, student = (1 / (1 + math.exp(-logit)) for logit in (1.0, 0.6))
    assert ahead > ungated > 0
    assert near == pytest.approx(ungated * (teacher / student - 1) / 0.2, rel=1e-4)


def test_each_teacher_has_a_gate_of_its_own() -> None:
    alone = run(gated(Asked(2.0)), 0.0, 1)[0]["kdcls_loss"]
    both = run(gated(Asked(2.0), Asked(-1.0)), 0.0, 1)[0]["kdcls_loss"]
    assert both == pytest.approx(alone / 2)


def test_a_resumed_gate_is_as_closed_as_before() -> None:
    distiller, again = gated(Asked(-1.0)), gated(teacher := Asked(-1.0))
    run(distiller, 1.0, 3)
    again.load(distiller.state())
    assert all(value == 0 for items in run(again, 1.0, 2) for value in items.values())
    assert teacher.asked == []
    earlier = {key: value for key, value in distiller.state().items() if key != "gates"}
    gated(Asked(-1.0)).load(earlier)  # a run of an earlier version


def test_the_terms_on_the_heads_of_several_teachers_are_averaged_by_their_shares() -> None:
    settings = {"ima_weight": 0.0, "ima_cls": 1.0, "ima_box": 1.0, "ima_gate": False}
    first, second = (terms_of(with_heads([Predicting(shift)], **settings)) for shift in (0.3, 0.9))
    both = terms_of(with_heads([Predicting(0.3), Predicting(0.9)], ima_teacher_shares=(3, 1), **settings))
    assert both == pytest.approx({name: 0.75 * first[name] + 0.25 * second[name] for name in first}, rel=1e-5)
    assert abs(first["kdcls_loss"] - second["kdcls_loss"]) > 0.01, "the two say different things"


@pytest.mark.parametrize("place", [0, 1])
def test_a_teacher_of_features_alone_takes_nothing_from_what_the_other_s_head_says(place: int) -> None:
    settings = {"ima_cls": 1.0, "ima_box": 1.0}
    alone = terms_of(with_heads([Predicting()], **settings))
    teachers: list[Teacher] = [Predicting()]
    teachers.insert(place, Teacher())  # which a view refuses to ask for predictions
    distiller = with_heads(teachers, [index != place for index in range(2)], ima_teacher_shares=(3, 1), **settings)
    both = terms_of(distiller)
    assert both["ima_loss"] > 0
    assert {name: both[name] for name in ("kdcls_loss", "kdbox_loss")} == pytest.approx(
        {name: alone[name] for name in ("kdcls_loss", "kdbox_loss")}, rel=1e-5
    )
    assert (distiller.heads[place], distiller.heads[1 - place].gate.steps) == (None, 1)
    again = with_heads(teachers, [index != place for index in range(2)], ima_teacher_shares=(3, 1), **settings)
    again.load(distiller.state())
    assert again.heads[1 - place].gate.state() == distiller.heads[1 - place].gate.state()


def test_the_schedule_scales_what_is_added_and_its_gradient() -> None:
    found = []
    for progress in (0.0, 0.5):
        distiller = with_heads(ima_weight=2.0, ima_cls=1.0, ima_box=1.0, ima_loss="l2", ima_schedule="linear")
        distiller.set_progress(progress)
        maps = student_maps()
        total, items = distiller(batch(), maps, torch.zeros(()), lambda: said(2))
        (slope,) = torch.autograd.grad(total, maps.maps[:1])
        assert total.item() == pytest.approx(sum(value.item() for value in items.values()))
        found.append({**{name: value.item() for name, value in items.items()}, "slope": slope.norm().item()})
    assert min(found[0].values()) > 0
    assert found[1] == pytest.approx({name: value / 2 for name, value in found[0].items()}, rel=1e-5)


def test_of_a_share_of_the_batch_the_rest_is_left_alone() -> None:
    seen = set()
    for seed in range(8):
        distiller, maps = build(ima_batch_share=0.5, ima_loss="l2", ima_weight=1.0), student_maps()
        distiller._rng.manual_seed(seed)
        total, _ = step(distiller, maps)
        total.backward()
        touched = [bool(maps.maps[0].grad[image].abs().sum() > 0) for image in range(2)]
        assert sum(touched) == 1, "of two images the teacher sees one"
        seen.add(touched.index(True))
    assert seen == {0, 1}, "at random, also where the data is not shuffled"


class Single(Teacher):
    """Shows the maps of one image, whatever it sees."""

    def __init__(self, image: int) -> None:
        super().__init__()
        self.maps = tuple(level[image : image + 1] for level in self.maps)


def drawn() -> torch.Tensor:
    """The image of two that a distiller with seed 0 draws first."""
    return torch.randperm(2, generator=torch.Generator().manual_seed(0))[:1]


def test_a_share_of_the_batch_is_what_it_is_alone() -> None:
    settings = {"ima_loss": "l2", "ima_weight": 1.0}
    alone, maps = some_images(batch(), drawn()), student_maps().of_images(drawn())
    expected, _ = build(Single(int(drawn())), **settings)(alone, maps, torch.zeros(()), lambda: None)
    found, _ = step(build(Single(int(drawn())), ima_batch_share=0.5, **settings))
    assert found.item() == pytest.approx(expected.item()) != 0


def test_of_every_third_batch_the_terms_count_thrice() -> None:
    distiller = with_heads(ima_weight=2.0, ima_cls=1.0, ima_box=1.0, ima_loss="l2", ima_every=3)
    plain = with_heads(ima_weight=2.0, ima_cls=1.0, ima_box=1.0, ima_loss="l2")
    expected = plain(batch(), student_maps(), torch.zeros(()), lambda: said(2))[1]
    on = []
    for _ in range(5):
        on.append(distiller.is_on)
        total, items = distiller(batch(), student_maps(), torch.zeros(()), lambda: said(2))
        wanted = {name: 3 * value.item() if on[-1] else 0.0 for name, value in expected.items()}
        assert {name: value.item() for name, value in items.items()} == pytest.approx(wanted, rel=1e-5)
        assert total.item() == pytest.approx(sum(wanted.values()), rel=1e-5)
        assert distiller.effective_weight == 2.0
    assert on == [True, False, False, True, False]
    again = with_heads(ima_weight=2.0, ima_cls=1.0, ima_box=1.0, ima_loss="l2", ima_every=3)
    again.load(distiller.state())
    assert not again.is_on
    again(batch(), student_maps(), torch.zeros(()), lambda: said(2))
    assert again.is_on, "it goes on counting where it was"


def test_the_weight_knows_what_share_was_seen() -> None:
    maps = student_maps()
    half = build(Single(int(drawn())), ima_batch_share=0.5, ima_loss="l2")
    total, _ = step(half, maps)
    task = sum(level.sum() for level in maps.maps)
    ratio = gradient_norm(total, maps.maps) / gradient_norm(task, maps.maps)
    assert ratio == pytest.approx(0.1 / 0.5**0.5, rel=1e-5), "0.1 of the task's, but for the length of a mean of half"
    whole, least = build(), build(ima_batch_share=0.01)
    for distiller in (whole, least):
        only = student_maps().of_images(torch.tensor([0]))
        step_of_one = some_images(batch(), torch.tensor([0]))
        distiller(step_of_one, only, sum(level.sum() for level in only.maps), lambda: None)
    assert least.weight.value == pytest.approx(whole.weight.value), "an image is the least, and here the whole batch"


def test_the_labels_of_a_part_are_those_of_its_images() -> None:
    part = some_images({**batch(), "cls": torch.zeros(2, 1)}, torch.tensor([1]))
    assert part["img"].shape == (1, 3, 64, 64)
    assert regions_of(part, TeacherOutput(Features((), ()))).boxes.tolist() == [[0, 0, 32, 32, 64]]
    pixels = torch.arange(2 * 4 * 4).view(2, 4, 4)
    part = some_images({"img": torch.zeros(2, 3, 4, 4), "semantic_mask": pixels}, torch.tensor([1, 0]))
    assert torch.equal(part["semantic_mask"], pixels[[1, 0]])


def test_a_distiller_goes_on_from_its_state() -> None:
    first, second = build(), build()
    for _ in range(3):
        step(first)
    with torch.no_grad():
        for value in first.parameters():
            value += 0.1
    second.load(first.state())
    for _ in range(3):
        assert step(first)[0].item() == step(second)[0].item()


def test_a_term_that_stops_teaching_later_is_reported_too(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("ima_yolo.distill.LOGGER.warning", said.append)
    teacher = Teacher()
    distiller, maps = build(teacher, ima_loss="l2", ima_weight=1.0), student_maps()
    for epoch in range(3):
        distiller.set_progress(epoch / 3)
        for _ in range(20):
            if epoch == 0:
                with torch.no_grad():
                    maps.maps[0].mul_(1.01)
            step(distiller, maps)
    assert said == ["ima_loss did not change over 20 steps: the student learns nothing from the teacher"]


def test_a_state_of_another_device_is_taken_without_its_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("ima_yolo.distill.LOGGER.warning", said.append)
    state = {**build().state(), "rng": torch.zeros(16, dtype=torch.uint8)}
    build().load(state)
    assert any("another kind of device" in line for line in said)


def test_turned_boxes_become_the_upright_ones_around_them() -> None:
    turned = {
        **batch(),
        "bboxes": torch.tensor([[0.5, 0.5, 0.5, 0.25, torch.pi / 2], [0.5, 0.5, 0.5, 0.25, torch.pi / 4]]),
    }
    boxes = regions_of(turned, TeacherOutput(Features((), ()))).boxes
    half = (32 + 16) / 2 / 2**0.5
    assert boxes[0].tolist() == pytest.approx([0, 24, 16, 40, 48], abs=1e-4)
    assert boxes[1].tolist() == pytest.approx([1, 32 - half, 32 - half, 32 + half, 32 + half], abs=1e-4)


def test_several_teachers_count_by_their_shares() -> None:
    first, second = Teacher(), Teacher()
    second.maps = tuple(level.flip(0) * 2 for level in second.maps)
    settings = {"ima_weight": 1.0, "ima_mask": "none"}

    def alone(teacher: Teacher) -> float:
        return step(build(teacher, **settings))[0].item()

    chosen = Settings(teacher="a.pt,b.pt", ima_teacher_shares=(3, 1), **settings)
    views = [fit(teacher, tuple(SHAPES)) for teacher in (first, second)]
    both = build_distiller(chosen, views, student_maps(), torch.device("cpu"), seed=0)
    assert step(both)[0].item() == pytest.approx(0.75 * alone(first) + 0.25 * alone(second), rel=1e-5)
    adapters = [name for name, _ in both.named_parameters() if name.endswith("adapter.weight")]
    assert len(adapters) == 4, "each teacher has adapters of its own"
