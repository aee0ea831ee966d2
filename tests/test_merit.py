from __future__ import annotations

from typing import Any

import pytest
import torch

from ima_yolo.criterion import HeadTerms
from ima_yolo.features import Predictions
from ima_yolo.merit import Gate, merit

SURE = 20.0  # logit of a score of 1


def said(scores: list[list[float]], boxes: list[list[float]]) -> Predictions:
    return Predictions(torch.tensor([scores]), torch.tensor([boxes]))


def test_merit_by_hand() -> None:
    boxes = [[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 5.0], [20.0, 20.0, 30.0, 30.0]]
    found = said([[-SURE, 0.0], [-SURE, SURE], [0.0, -SURE]], boxes)
    labels = torch.tensor([[0, 0.0, 0, 10, 10], [0, 20, 20, 30, 30], [0, 50, 50, 60, 60]])
    # class 1 on the first: 0.5 * 1 and 1 * 0.5; class 0 on the second: 0.5 * 1; nothing meets the third
    assert merit(found, labels, torch.tensor([1, 0, 1])).tolist() == pytest.approx([0.5, 0.5, 0.0], abs=1e-6)
    assert merit(found, labels[:0], torch.zeros(0, dtype=torch.long)).tolist() == []


def test_each_object_is_sought_in_its_own_image() -> None:
    one, box = [[SURE]], [[0.0, 0.0, 8.0, 8.0]]
    both = Predictions(torch.tensor([one, [[-SURE]]]), torch.tensor([box, box]))
    labels = torch.tensor([[0, 0.0, 0, 8, 8], [1, 0, 0, 8, 8]])
    assert merit(both, labels, torch.tensor([0, 0])).tolist() == pytest.approx([1.0, 0.0], abs=1e-6)


def of(score: float) -> Predictions:
    """One cell in the place of the label, with this score of class 0."""
    return said([[torch.logit(torch.tensor(score)).item(), -SURE]], [[0.0, 0.0, 8.0, 8.0]])


LABEL = torch.tensor([[0, 0.0, 0, 8, 8]])


@pytest.mark.parametrize(("teacher", "factor"), [(0.8, 1.0), (0.48, 1.0), (0.44, 0.5), (0.4, 0.0), (0.1, 0.0)])
def test_it_closes_as_the_teacher_falls_behind(teacher: float, factor: float) -> None:
    gate = Gate({0: 0})
    assert gate.value == 1.0, "open until it is known"
    gate.measure(of(0.4), of(teacher), LABEL, torch.tensor([0.0]))
    assert gate.value == pytest.approx(factor, abs=1e-4)


def test_it_looks_every_few_steps_and_forgets_slowly() -> None:
    gate = Gate({0: 0}, every=3, momentum=0.75)
    due = []
    for _ in range(7):
        due.append(gate.is_due)
        gate.advance()
    assert due == [True, False, False, True, False, False, True]
    gate.measure(of(0.2), of(0.8), LABEL, torch.tensor([0]))
    gate.measure(of(0.6), of(0.4), LABEL, torch.tensor([0]))
    assert (gate.student, gate.teacher) == pytest.approx((0.3, 0.7), abs=1e-4)


def test_only_classes_that_both_know_count_each_at_its_place_in_the_teacher() -> None:
    gate = Gate({1: 0})  # the data's class 1 is the teacher's 0, and it knows no 0
    student = said([[SURE, -SURE]], [[0.0, 0.0, 8.0, 8.0]])
    gate.measure(student, of(0.5), LABEL, torch.tensor([0]))
    assert gate.student is None, "no object of a shared class"
    gate.measure(student, of(0.5), LABEL, torch.tensor([1]))
    assert (gate.student, gate.teacher) == pytest.approx((0.0, 0.5), abs=1e-4)


def test_no_number_changes_nothing() -> None:
    gate = Gate({0: 0})
    gate.measure(of(0.4), of(0.2), LABEL, torch.tensor([0]))
    before = gate.state()
    gate.measure(said([[float("nan"), 0.0]], [[0.0, 0.0, 8.0, 8.0]]), of(0.8), LABEL, torch.tensor([0]))
    assert gate.state() == before


def test_it_is_said_once_that_the_teacher_was_overtaken_and_state_goes_on() -> None:
    gate, again = Gate({0: 0}), Gate({0: 0})
    assert gate.verdict("t.pt") is None
    gate.measure(of(0.4), of(0.2), LABEL, torch.tensor([0]))
    gate.advance()
    line = gate.verdict("t.pt")
    assert line is not None
    assert "better than t.pt does (0.4 against 0.2," in line
    assert gate.verdict("t.pt") is None
    again.load(gate.state())
    assert (again.value, again.steps, again.verdict("t.pt")) == (0.0, 1, None)


def test_of_a_teacher_that_knows_a_part_of_the_classes_only_the_head_is_said_to_rest() -> None:
    gate = Gate({0: 0})
    gate.measure(of(0.4), of(0.2), LABEL, torch.tensor([0]))
    line = HeadTerms(1.0, 1.0, [(0, 0)], gate, is_whole=False).verdict("t.pt")
    assert line is not None
    assert line.endswith(": its head no longer counts (its features do) unless it gets ahead again")
    assert HeadTerms(1.0, 1.0, [(0, 0)]).verdict("t.pt") is None, "without a gate"


def test_where_neither_knows_anything_nothing_is_said() -> None:
    gate = Gate({0: 0})
    gate.measure(of(0.004), of(0.003), LABEL, torch.tensor([0]))
    assert (gate.value, gate.verdict("t.pt")) == (0.0, None)


def test_every_process_goes_on_with_the_mean_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def both(sums: Any) -> None:
        sums += torch.tensor([0.9, 0.3, 2.0])  # another process with two objects

    monkeypatch.setattr("ima_yolo.merit.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("ima_yolo.merit.distributed.all_reduce", both)
    gate = Gate({0: 0})
    gate.measure(of(0.6), of(0.3), LABEL, torch.tensor([0]))
    assert (gate.student, gate.teacher) == pytest.approx((0.5, 0.2), abs=1e-4)
    gate = Gate({0: 0})
    gate.measure(of(0.6), of(0.3), LABEL[:0], torch.zeros(0))
    assert (gate.student, gate.teacher) == pytest.approx((0.45, 0.15), abs=1e-4), "one without objects takes part"
