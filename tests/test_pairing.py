"""Which teachers take part in which terms, and where they get their weights."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ima_yolo.config import Settings
from ima_yolo.errors import IMAError
from ima_yolo.pairing import HeadChoice, choose_heads

NAMES = {0: "disc", 1: "square"}


def teacher(name: str, **changed: Any) -> Any:
    says = {"strides": (8, 16, 32), "predicts": True, "class_names": NAMES}
    return SimpleNamespace(**{"name": name, **says, **changed})


YOLO = teacher("yolo.pt")
RTDETR = teacher("rtdetr.pt", predicts=False)
STRANGER = teacher("cats.pt", class_names={0: "cat"})
LARGE = teacher("p6.pt", strides=(8, 16, 32, 64))


def chosen(*teachers: Any, kind: str = "detect", **settings: Any) -> HeadChoice:
    asked = Settings(teacher=",".join(own.name for own in teachers), **settings)
    return choose_heads(asked, kind, (8, 16, 32), teachers, 64, NAMES)


@pytest.mark.parametrize("settings", [{}, {"ima_cls": 1.0}, {"ima_cls": 1.0, "ima_box": 1.0}])
def test_teachers_whose_heads_can_be_compared_take_part_and_a_line_names_the_others(settings: dict[str, Any]) -> None:
    found = chosen(RTDETR, YOLO, STRANGER, LARGE, **settings)
    assert found.compared == (False, True, False, False)
    assert (found.settings.ima_cls, found.settings.ima_box) == (1.0, 1.0)
    assert found.left_out is not None
    assert found.left_out.startswith("Terms on the heads leave out: rtdetr.pt has no head of an ")
    assert "; cats.pt knows none of the data's classes; " in found.left_out
    assert found.left_out.endswith("at strides [8, 16, 32] and [8, 16, 32, 64] in p6.pt")
    assert "yolo.pt" not in found.left_out


def test_classes_that_a_teacher_does_not_know_are_named() -> None:
    part = teacher("part.pt")
    part.class_names = {0: list(NAMES.values())[-1], 1: "cat"}
    found = chosen(part)
    unknown = ", ".join(list(NAMES.values())[:-1])
    assert (found.compared, found.left_out) == (
        (True,),
        f"Terms on the heads leave out: part.pt does not know {unknown}",
    )


def test_where_all_heads_can_be_compared_nothing_is_said() -> None:
    found = chosen(YOLO, teacher("other.pt"))
    assert (found.compared, found.left_out) == ((True, True), None)
    assert (found.settings.ima_cls, found.settings.ima_box) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("teachers", "settings", "ratio"),
    [
        ((YOLO,), {}, 0.5),
        ((YOLO, YOLO), {"ima_box": 0.0}, 0.5),
        ((YOLO,), {"ima_gate": False}, 0.1),
        ((YOLO,), {"ima_cls": 0.0, "ima_box": 0.0}, 0.1),
        ((RTDETR,), {}, 0.1),
        ((YOLO, RTDETR), {}, 0.1),
        ((teacher("part.pt", class_names={0: "disc"}),), {}, 0.1),
        ((YOLO,), {"ima_weight_ratio": 0.3}, 0.3),
        ((RTDETR,), {"ima_weight_ratio": 2}, 2.0),
    ],
)
def test_features_weigh_more_where_a_gate_watches_every_teacher(
    teachers: tuple[Any, ...], settings: dict[str, Any], ratio: float
) -> None:
    assert chosen(*teachers, **settings).settings.ima_weight_ratio == ratio


@pytest.mark.parametrize("settings", [{"ima_weight": 0.0}, {"ima_cls": 0.0, "ima_box": 0.0}])
def test_terms_that_are_off_are_off_without_a_word(settings: dict[str, Any]) -> None:
    found = chosen(RTDETR, YOLO, **settings)
    assert (found.settings.ima_cls, found.settings.ima_box) == (0.0, 0.0)
    assert not any(found.compared)
    assert found.left_out is None


def test_without_any_head_features_alone_are_distilled_and_all_reasons_are_said() -> None:
    found = chosen(RTDETR, STRANGER)
    assert (found.settings.ima_cls, found.settings.ima_box, found.compared) == (0.0, 0.0, (False, False))
    assert found.left_out is not None
    assert found.left_out.startswith("Distilling features alone, not what the heads say: rtdetr.pt has no head")
    assert "cats.pt knows none of the data's classes" in found.left_out
    pose = chosen(YOLO, teacher("other.pt"), kind="pose").left_out
    assert pose is not None
    assert pose.count("the student's kind is pose") == 1, "one reason for all is said once"


def test_terms_that_were_asked_for_and_no_teacher_can_give_are_refused() -> None:
    with pytest.raises(IMAError, match=r"^ima_cls, ima_box: rtdetr.pt has no head .*; cats.pt knows none"):
        chosen(RTDETR, STRANGER, ima_cls=1.0)


def test_without_features_every_teacher_needs_a_head_that_can_be_compared() -> None:
    heads_alone = {"ima_weight": 0.0, "ima_cls": 1.0, "ima_box": 1.0}
    assert chosen(YOLO, teacher("other.pt"), **heads_alone).compared == (True, True)
    with pytest.raises(IMAError, match=r"^ima_cls, ima_box: rtdetr.pt has no head"):
        chosen(YOLO, RTDETR, **heads_alone)
