from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest
import yaml

from ima_yolo.config import Settings, own_keys, read_yaml, split, validate
from ima_yolo.errors import IMAError


def test_default_yaml_lists_every_key_with_the_default_that_is_in_force() -> None:
    written = yaml.safe_load((files("ima_yolo.cfg") / "default.yaml").read_text())
    assert set(written) == own_keys()
    defaults = Settings(teacher="t.pt").model_dump()
    assert {key: value for key, value in written.items() if key not in {"teacher", "student"}} == {
        key: value for key, value in defaults.items() if key != "teacher"
    }


def test_split_separates_and_renames_the_student() -> None:
    ours, rest = split({"teacher": "t.pt", "student": "s.pt", "epochs": 3, "ima_loss": "cwd"})
    assert ours == {"teacher": "t.pt", "ima_loss": "cwd"}
    assert rest == {"model": "s.pt", "epochs": 3}


def test_student_and_model_may_agree_but_not_differ() -> None:
    assert split({"student": "s.pt", "model": "s.pt"})[1] == {"model": "s.pt"}
    with pytest.raises(IMAError, match="two models"):
        split({"student": "s.pt", "model": "other.pt"})


def test_a_misspelt_key_gets_a_suggestion() -> None:
    with pytest.raises(IMAError, match=r"'ima_wieght' is not a setting \(did you mean 'ima_weight'\?\)"):
        split({"ima_wieght": 1})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "teacher= is missing"),
        ({"teacher": ""}, "teacher="),
        ({"ima_loss": "kd"}, "ima_loss=kd"),
        ({"ima_weight": -1}, "ima_weight=-1: must be 'auto' or a number from 0 up"),
        ({"ima_weight": "high"}, "ima_weight=high: must be 'auto' or a number from 0 up"),
        ({"ima_weight": float("nan")}, "ima_weight=nan"),
        ({"ima_weight_ratio": 0}, "ima_weight_ratio=0: must be 'auto' or a number above 0, at most 100"),
        ({"ima_weight_ratio": 101}, "ima_weight_ratio=101: must be 'auto' or a number above 0, at most 100"),
        ({"ima_weight_ratio": "much"}, "ima_weight_ratio=much: must be 'auto' or a number above 0, at most 100"),
        ({"ima_weight": True}, "ima_weight=True: must be 'auto' or a number"),
        ({"ima_cls": None}, "ima_cls=none: must be 'auto' or a number from 0 up; 0 is off"),
        ({"ima_mask_ratio": False}, "ima_mask_ratio=False: expected a value"),
        ({"ima_weight": float("inf")}, "ima_weight=inf"),
        ({"ima_mask_ratio": 1.0}, "ima_mask_ratio=1.0: input should be less than 1"),
        ({"ima_mask_ratio": -0.1}, "ima_mask_ratio=-0.1"),
        ({"ima_off": 1}, "ima_off=1"),
        ({"ima_levels": "8,x"}, "ima_levels=8,x"),
        ({"ima_box_size": 1}, "ima_box_size=1"),
        ({"ima_instance": "box", "ima_objects": "gt"}, "ima_objects weighs positions"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_it(given: dict[str, object], message: str) -> None:
    with pytest.raises(IMAError) as caught:
        validate({"teacher": "t.pt", **given} if given else {})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("given", [8, "8", (8,), [8], "[8]"])
def test_levels_in_every_spelling(given: object) -> None:
    assert validate({"teacher": "t.pt", "ima_levels": given}).ima_levels == (8,)


@pytest.mark.parametrize("key", ["ima_mask", "ima_generator", "ima_standardize", "ima_deflation", "ima_objects"])
def test_none_typed_on_the_command_line_is_the_choice_of_that_name(key: str) -> None:
    from ima_yolo.cli import read_options

    ours, _ = split(read_options(["teacher=t.pt", f"{key}=none"]))
    assert getattr(validate(ours), key) == "none"


@pytest.mark.parametrize("given", [None, "", [], "[]"])
def test_no_level_means_all(given: object) -> None:
    assert validate({"teacher": "t.pt", "ima_levels": given}).ima_levels is None


def test_several_levels() -> None:
    assert validate({"teacher": "t.pt", "ima_levels": "8,16"}).ima_levels == (8, 16)


@pytest.mark.parametrize(
    ("given", "shares"),
    [("1e308,1e308", (0.5, 0.5)), ("5e-324,5e-324", (0.5, 0.5)), ("3,1", (0.75, 0.25)), ("1e308,1", (1.0, 1e-308))],
)
def test_shares_of_any_size_sum_to_one(given: str, shares: tuple[float, float]) -> None:
    assert validate({"teacher": "a.pt,b.pt", "ima_teacher_shares": given}).shares == pytest.approx(shares, abs=0)


def test_weight_is_a_number_or_auto() -> None:
    assert validate({"teacher": "t.pt", "ima_weight": 2}).ima_weight == 2.0
    assert validate({"teacher": "t.pt"}).ima_weight == "auto"


@pytest.mark.parametrize(
    ("given", "restore"),
    [
        ({}, "light"),
        ({"ima_mask": "frequency"}, "none"),
        ({"ima_mask": "none"}, "none"),
        ({"ima_mask_ratio": 0.0}, "none"),
        ({"ima_mask": "none", "ima_generator": "conv"}, "conv"),
        ({"ima_generator": "conv"}, "conv"),
        ({"ima_generator": "none"}, "none"),
    ],
)
def test_a_generator_follows_a_spatial_mask_unless_told(given: dict[str, object], restore: str) -> None:
    assert Settings(teacher="t.pt", **given).restore == restore


def test_the_head_of_the_teacher_runs_only_where_a_setting_needs_it() -> None:
    plain = Settings(teacher="t.pt")
    assert not plain.needs_confidence
    assert not plain.needs_teacher_boxes
    assert Settings(teacher="t.pt", ima_objects="teacher").needs_confidence
    assert Settings(teacher="t.pt", ima_instance="box", ima_boxes="teacher").needs_teacher_boxes
    assert not Settings(teacher="t.pt", ima_boxes="teacher").needs_teacher_boxes, "nothing looks at boxes"
    assert not Settings(teacher="t.pt", ima_loss="cwd", ima_objects="teacher").needs_confidence


def test_settings_that_the_loss_does_not_read_are_named() -> None:
    assert Settings(teacher="t.pt", ima_loss="cwd", ima_mask="none", ima_temperature=2).without_effect == ["ima_mask"]
    assert Settings(teacher="t.pt", ima_loss="mgd", ima_mask_ratio=0.3).without_effect == []
    assert Settings(teacher="t.pt", ima_weight=1, ima_weight_ratio=2).without_effect == ["ima_weight_ratio"]
    assert Settings(teacher="t.pt", ima_mask="none").without_effect == []
    assert Settings(teacher="t.pt", ima_gate=False, ima_cls=0, ima_box=0).without_effect == ["ima_gate"]
    assert Settings(teacher="t.pt", ima_gate=False, ima_cls=0).without_effect == []


def test_no_gate_is_in_force_where_no_head_is_compared() -> None:
    left = Settings(teacher="t.pt")
    assert left.with_heads(usable=True, watched=True).ima_gate
    assert not left.with_heads(usable=False).ima_gate
    assert not Settings(teacher="t.pt", ima_cls=0, ima_box=0).with_heads(usable=True, watched=True).ima_gate


@pytest.mark.parametrize("content", ["- a list", "a: [", "a: !!python/object/apply:os.system ['true']", "\x00"])
def test_a_recipe_that_is_no_plain_mapping_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    with pytest.raises(IMAError, match=r"cfg=.*bad\.yaml") as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)


def test_an_empty_value_in_a_recipe_leaves_the_default(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("teacher: t.pt\nima_mask:\nima_deflation: none\n")
    settings = validate(read_yaml(path))
    assert (settings.ima_mask, settings.ima_deflation) == ("spatial", "none")
