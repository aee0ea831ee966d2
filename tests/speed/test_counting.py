"""How a step of ours is counted: periodic work by its share, parts that add up, and the optimizer's state in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ima_yolo import weighting
from ima_yolo.errors import IMAError
from ima_yolo.labels import regions_of
from ima_yolo.masks import Regions
from ima_yolo.merit import Gate
from ima_yolo.speed import memory, steps
from ima_yolo.speed.case import Case
from ima_yolo.speed.clock import Clock, clocked
from ima_yolo.speed.parts import REST, WHOLE, build_alone, counted, time_parts
from ima_yolo.speed.periodic import GATE, WATCH, WEIGHT
from ima_yolo.speed.rounds import alternate
from ima_yolo.speed.steps import Step, teacher_as_run, teacher_file

CPU = torch.device("cpu")
SMALL = Case("yolo26n.yaml", "yolo26s.yaml", imgsz=64, batch=2)
EVERY = {WEIGHT: 10, GATE: 5, WATCH: 20}


@pytest.fixture
def ours(tmp_path: Path) -> Step:
    return Step(SMALL, "ours", CPU, teacher_file(SMALL.teacher, tmp_path))


def ticking(*readings: float) -> Any:
    return SimpleNamespace(perf_counter=iter(readings).__next__)


def test_a_stretch_is_timed_without_those_inside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ima_yolo.speed.clock.time", ticking(0.0, 1.0, 3.0, 4.0, 4.5, 10.0))
    clock = Clock(CPU)
    with clock("outer"):
        for _ in range(2):
            with clock("inner"):
                pass
    assert clock.seconds == {"inner": 2.5, "outer": 7.5}


def test_one_object_is_clocked_and_no_other() -> None:
    one, other, clock = torch.nn.Identity(), torch.nn.Identity(), Clock(CPU)
    clocked(one, "forward", "one", clock)
    assert one(3) == other(3) == 3
    assert list(clock.seconds) == ["one"]
    assert type(other) is torch.nn.Identity


def test_what_does_not_count_is_taken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    class Action:
        surplus = 0.25

        def __call__(self) -> None:
            pass

    monkeypatch.setattr("ima_yolo.speed.rounds.time", ticking(0.0, 1.0, 2.0, 4.0))
    assert alternate({"a": Action()}, 1, CPU, lambda _: None) == {"a": [1.75]}


def test_each_step_does_the_default_s_periodic_work_and_counts_its_share(
    ours: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []
    norm, take = weighting.gradient_norm, Gate._take
    monkeypatch.setattr(weighting, "gradient_norm", lambda *a, **k: (measured.append("norm"), norm(*a, **k))[1])
    monkeypatch.setattr(Gate, "_take", lambda *a: (measured.append("gate"), take(*a))[1])
    for _ in range(2):
        measured.clear()
        ours()
        assert measured.count("norm") == 2 + 3, "task and term for the weight, each of three terms for the watch"
        assert measured.count("gate") == 1
    assert ours.periods == EVERY
    done = ours.history[-1]
    assert done.keys() == EVERY.keys()
    assert ours.surplus == pytest.approx(done[WEIGHT] * 0.9 + done[GATE] * 0.8 + done[WATCH] * 0.95)


def test_the_gate_measures_and_stays_open(ours: Step) -> None:
    """What untrained networks know says nothing: closed, it would spare the step a part of its cost."""
    (head,) = ours.model.ima.heads
    head.gate.student, head.gate.teacher = 1.0, 0.0
    ours()
    assert head.factor == 1.0
    assert head.gate.student != 1.0, "measured"


def test_what_is_switched_off_is_not_counted(tmp_path: Path) -> None:
    case = Case(*(SMALL.student, SMALL.teacher, 64, 2), (("ima_gate", False), ("ima_weight", 1.0)))
    step = Step(case, "ours", CPU, teacher_file(SMALL.teacher, tmp_path))
    step()
    assert step.periods == {WATCH: 20}
    assert step.model.ima.heads[0].gate is None
    assert Step(case, "plain", CPU, tmp_path).periods == {}


@pytest.mark.parametrize("runtime", ["torch", "onnx"])
def test_the_floor_as_run_is_our_step_s_own_teacher(
    runtime: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(SMALL.student, SMALL.teacher, 64, 2, (("ima_teacher_runtime", runtime),))
    step = Step(case, "ours", CPU, teacher_file(SMALL.teacher, tmp_path))
    (view,) = step.model.ima.teachers
    asked: list[tuple[bool, bool]] = []
    look = type(view.teacher)._look
    monkeypatch.setattr(
        type(view.teacher),
        "_look",
        lambda self, images, head: (asked.append((self is view.teacher, head)), look(self, images, head))[1],
    )
    teacher_as_run(step)()
    assert asked == [(True, True)], "with its head, as the terms on the heads ask"
    assert (view.teacher._graphs is not None) is (runtime == "onnx")


def in_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "in_half", lambda _: True)
    monkeypatch.setattr(steps, "autocast", lambda on, device: torch.autocast(device, torch.float16, enabled=bool(on)))


@pytest.mark.parametrize("arm", ["plain", "builtin", "ours"])
def test_in_half_precision_the_first_step_trains(arm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From PyTorch's own first scale it overflows: no state of the optimizer, no memory of it."""
    in_float16(monkeypatch)
    teacher = teacher_file(SMALL.teacher, tmp_path)
    step = Step(SMALL, arm, CPU, teacher)
    step()
    assert step.optimizer.state
    assert not step.has_skipped
    monkeypatch.setattr(steps, "INIT_SCALE", 65536.0)
    step = Step(SMALL, arm, CPU, teacher)
    step()
    assert not step.optimizer.state
    assert step.has_skipped
    step.warm_up()
    assert step.optimizer.state
    assert not step.has_skipped, "since then"


def test_a_step_that_never_trains_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Step(SMALL, "plain", CPU, tmp_path)
    monkeypatch.setattr(step.scaler, "step", lambda _: None)
    monkeypatch.setattr(steps, "MOST_SKIPPED", 2)
    with pytest.raises(IMAError, match=r"batch 2: the step called 'plain' trains nothing: .* 2 times in a row"):
        step.warm_up()
    assert len(step.history) == 2


def test_the_peak_is_that_of_steps_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    order: list[str] = []

    def build(*_: Any) -> Any:
        order.append("build")
        return FakeStep()

    class FakeStep:
        def __call__(self) -> None:
            order.append("step")

        def warm_up(self) -> None:
            order.append("warm up")

    monkeypatch.setattr(memory, "Step", build)
    monkeypatch.setattr(memory, "reset_peak", lambda _: order.append("reset"))
    monkeypatch.setattr(memory, "peak_memory", lambda _: (order.append("read"), 1.0)[1])
    threads = torch.get_num_threads()
    memory.main(['{"student": "a", "teacher": "b", "settings": []}', "ours", "cpu", str(threads), "b.pt"])
    assert order == ["read", "build", "reset", "warm up", "step", "step", "read"]
    assert capsys.readouterr().out == '{"peak": 1.0, "added": 0.0}\n'


def test_a_gpu_s_peak_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    from ima_yolo.memory import reset_peak

    told: list[Any] = []
    monkeypatch.setattr("torch.cuda.reset_peak_memory_stats", told.append)
    reset_peak(CPU)
    reset_peak(torch.device("cuda"))
    assert told == [torch.device("cuda")]


def test_shares_by_hand() -> None:
    found = counted({"a": 0.5, "b": 2.0}, {"b": 10})
    assert found == {"a": 0.5, "b, 1/10 of it": 0.2}


@pytest.mark.parametrize(
    ("settings", "feature_loss"),
    [
        ((), ["mask, forward", "generator, forward", "adapter and comparison in one, forward"]),
        ((("ima_loss", "mgd"),), ["feature loss with adapter, mask and generator, forward"]),
    ],
)
def test_parts_add_up_to_the_step(
    settings: tuple[tuple[str, Any], ...], feature_loss: list[str], tmp_path: Path
) -> None:
    case = Case(SMALL.student, SMALL.teacher, 64, 2, settings)
    found = time_parts(case, CPU, teacher_file(SMALL.teacher, tmp_path), 1, lambda _: None)
    parts = dict(found["step"])
    whole = parts.pop(WHOLE)
    assert sum(parts.values()) == pytest.approx(whole), "one round: no medians between"
    assert 0 <= parts[REST] < 0.2 * whole
    named = [*feature_loss, "student's forward pass", "the task's own loss", "terms on the heads, forward"]
    named += ["teacher, as our step asks it", "backward pass, of everything", "clipping, optimizer and average"]
    assert parts.keys() >= {*named, "automatic weight, 1/10 of it"}
    assert all(seconds > 0 for seconds in found["alone"].values())


@pytest.mark.parametrize(
    "settings",
    [(), (("ima_objects", "teacher"),), (("ima_boxes", "teacher"), ("ima_instance", "box"))],
)
def test_the_feature_loss_alone_has_the_objects_of_the_step(
    settings: tuple[tuple[str, Any], ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the labels, or of the teacher, which is asked for boxes or confidence then."""
    found: list[Regions] = []
    for module in ("distill", "speed.parts"):
        monkeypatch.setattr(f"ima_yolo.{module}.regions_of", lambda *of: (found.append(regions_of(*of)), found[-1])[1])
    case = Case(SMALL.student, SMALL.teacher, 64, 2, settings)
    step = Step(case, "ours", CPU, teacher_file(SMALL.teacher, tmp_path))
    step()
    build_alone(step)["feature loss, forward and backward"]()
    of_step, alone = found
    assert torch.equal(alone.boxes, of_step.boxes)
    assert (len(alone.boxes) == 2 * steps.BOXES) is ("ima_boxes" not in dict(settings)), "untrained, it finds none"
    assert alone.confidence.keys() == of_step.confidence.keys()
    assert all(torch.equal(alone.confidence[stride], of_step.confidence[stride]) for stride in of_step.confidence)


def test_parts_run_in_the_precision_of_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_float16(monkeypatch)
    monkeypatch.setattr("ima_yolo.speed.parts.autocast", steps.autocast)
    seen: set[torch.dtype] = set()
    wrap: Callable[..., Any] = steps.attach

    def attach(student: Any, distiller: Any) -> None:
        distiller.criterion.register_forward_pre_hook(lambda _, args: seen.update(m.dtype for m in args[0].maps))
        for member in distiller.criterion.members:
            member.register_forward_pre_hook(lambda _, args: seen.update(m.dtype for m in args[0].maps))
        wrap(student, distiller)

    monkeypatch.setattr(steps, "attach", attach)
    time_parts(SMALL, CPU, teacher_file(SMALL.teacher, tmp_path), 1, lambda _: None)
    assert seen == {torch.float16}
