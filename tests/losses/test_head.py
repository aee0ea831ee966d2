"""Terms on what the heads say: numbers derived by hand, gradients, invariances."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import gradcheck

from ima_yolo.criterion import HeadTerms
from ima_yolo.features import Predictions
from ima_yolo.losses import balanced, box_loss, score_loss


def logit(*probabilities: float) -> torch.Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).logit()


def test_scores_by_hand() -> None:
    student, teacher = logit(0.5, 0.5).view(1, 2, 1), logit(0.9, 0.5).view(1, 2, 1)
    # cell 1: |0.9 - 0.5|^2 * -(0.9 ln 0.5 + 0.1 ln 0.5) = 0.16 ln 2; cell 2: 0. Confidence 0.9 + 0.5.
    assert score_loss(student, teacher).item() == pytest.approx(0.16 * math.log(2) / 1.4)


def test_scores_of_several_classes_by_hand() -> None:
    student, teacher = logit(0.5, 0.5).view(1, 1, 2), logit(0.9, 0.4).view(1, 1, 2)
    # 0.4^2 ln 2 + 0.1^2 ln 2, over the confidence of the cell, which is that of its best class
    assert score_loss(student, teacher).item() == pytest.approx((0.16 + 0.01) * math.log(2) / 1.0)
    confident = logit(0.9, 0.8).view(1, 1, 2).repeat(1, 2, 1)
    doubled = score_loss(logit(0.5, 0.5).view(1, 1, 2).repeat(1, 2, 1), confident).item()
    assert doubled == pytest.approx(2 * (0.16 + 0.09) * math.log(2) / (0.9 + 0.9))


def test_equal_scores_cost_nothing() -> None:
    scores = torch.randn(2, 5, 3)
    assert score_loss(scores, scores.clone()).item() == pytest.approx(0.0, abs=1e-7)


def test_a_teacher_that_sees_nothing_does_not_blow_the_loss_up() -> None:
    student, teacher = torch.zeros(1, 100, 3), torch.full((1, 100, 3), -20.0)
    assert score_loss(student, teacher).item() == pytest.approx(300 * 0.25 * math.log(2), rel=1e-3)


def test_scores_pull_towards_the_teacher_from_both_sides() -> None:
    student, teacher = logit(0.2, 0.8).view(1, 2, 1).requires_grad_(), logit(0.5, 0.5).view(1, 2, 1)
    score_loss(student, teacher).backward()
    assert student.grad[0, 0, 0] < 0 < student.grad[0, 1, 0]


def test_gradients_in_double_precision() -> None:
    torch.manual_seed(0)
    student = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda scores: score_loss(scores, torch.randn_like(scores).detach() * 0 + 0.3), (student,))


BOX = torch.tensor([10.0, 10.0, 30.0, 20.0])


def test_equal_boxes_cost_nothing() -> None:
    boxes = BOX.repeat(1, 4, 1)
    assert box_loss(boxes, boxes.clone(), torch.ones(1, 4)).item() == pytest.approx(0.0, abs=1e-5)


def test_boxes_by_hand() -> None:
    # Shifted by half its width: IoU 1/3; centres 10 apart, diagonal of the hull 30 x 10; same shape.
    student = (BOX + torch.tensor([10.0, 0, 10, 0])).view(1, 1, 4)
    expected = 1 - 1 / 3 + 100 / (900 + 100)
    assert box_loss(student, BOX.view(1, 1, 4), torch.ones(1, 1)).item() == pytest.approx(expected, abs=1e-4)


def test_boxes_count_by_the_confidence_of_the_teacher() -> None:
    teacher = BOX.repeat(1, 2, 1)
    student = teacher + torch.tensor([[[10.0, 0, 10, 0], [0, 0, 0, 0]]])
    both = box_loss(student, teacher, torch.tensor([[1.0, 3.0]]))
    alone = box_loss(student[:, :1], teacher[:, :1], torch.ones(1, 1))
    assert both.item() == pytest.approx(alone.item() / 4, rel=1e-4)


def test_classes_count_alike_by_hand() -> None:
    """Three cells of class 0, one of class 1, and one that says next to nothing."""
    confidence, kinds = torch.tensor([[0.5, 0.5, 1.0, 0.5, 0.05]]), torch.tensor([[0, 0, 0, 1, 2]])
    for power in (0.0, 0.5, 1.0):
        factors = torch.tensor([[3.0, 3.0, 3.0, 1.5, 3.0]]).pow(-power)  # 1 + 2.0, and 1 + 0.5
        expected = confidence * factors
        expected *= confidence.sum() / expected.sum()
        assert torch.allclose(balanced(confidence, kinds, 4, power), expected)
    assert torch.equal(balanced(confidence, kinds, 4, 0.0), confidence)
    many = torch.full((1, 3000), 0.05)  # of class 2: as many as they are, they do not speak for it
    weights = balanced(torch.cat([confidence, many], 1), torch.cat([kinds, torch.full((1, 3000), 2)], 1), 4, 1.0)
    assert weights[0, 3] / weights[0, 2] == pytest.approx(0.5 * 3 / 1.5)
    assert weights[0, 9] / weights[0, 2] == pytest.approx(0.05)
    assert balanced(torch.zeros(1, 3), torch.zeros(1, 3, dtype=torch.long), 2, 1.0).tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_one_class_needs_no_balance(power: float) -> None:
    confidence = torch.rand(2, 50) * 0.8 + 0.1
    assert torch.allclose(balanced(confidence, torch.zeros(2, 50, dtype=torch.long), 1, power), confidence)


def test_a_rare_class_weighs_more_in_the_term_once_it_is_asked_for() -> None:
    teacher = Predictions(torch.full((1, 10, 2), -9.0), BOX.repeat(1, 10, 1))
    teacher.scores[0, :9, 0], teacher.scores[0, 9, 1] = 4.0, 4.0
    shifts = {"common": slice(0, 9), "rare": slice(9, 10)}
    found = {}
    for balance in (0.0, 1.0):
        head = HeadTerms(0.0, 1.0, [(0, 0), (1, 1)], balance=balance)
        for name, cells in shifts.items():
            boxes = teacher.boxes.clone()
            boxes[0, cells] += torch.tensor([10.0, 0, 10, 0])
            found[balance, name] = head(Predictions(teacher.scores, boxes), teacher)["kdbox_loss"].item()
    assert found[0.0, "common"] / found[0.0, "rare"] == pytest.approx(9, rel=1e-3)
    assert found[1.0, "common"] / found[1.0, "rare"] == pytest.approx(9 / (1 + 9 * 0.982) * (1 + 0.982), rel=1e-3)


def test_boxes_without_confidence_cost_nothing_but_can_be_differentiated() -> None:
    student = (BOX.view(1, 1, 4) + 5).requires_grad_()
    loss = box_loss(student, BOX.view(1, 1, 4), torch.zeros(1, 1))
    loss.backward()
    assert loss.item() == 0.0
    assert student.grad.isfinite().all()
