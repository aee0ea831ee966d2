from __future__ import annotations

from typing import Any

import pytest

from ima_yolo.errors import IMAError
from ima_yolo.experiment.arms import ALIKE, NAMED, Arm, read_arms

COMMON = {"model": "s.yaml", "epochs": 3, "ima_mask_ratio": 0.3}


def test_named_arms_in_every_spelling() -> None:
    expected = (NAMED["none"], NAMED["builtin"], NAMED["ima"])
    assert read_arms("none, builtin,ima") == read_arms(["none", "builtin", "ima"]) == expected
    assert read_arms(("none", "cwd"))[1].settings == {"ima_loss": "cwd", "ima_cls": 0, "ima_box": 0}


def test_own_arms_are_settings_on_top_of_the_shared_ones() -> None:
    arms = read_arms({"none": None, "box": {"ima_instance": "box", "lr0": 0.1}})
    assert arms == (NAMED["none"], Arm("box", "ima", {"ima_instance": "box", "lr0": 0.1}))


def test_an_arm_with_the_name_of_a_known_one_is_that_one_with_these_keys_on_top() -> None:
    """It was IMA's, whatever its name: `none` learnt from the teacher."""
    keys = {"none": {"lr0": 0.1}, "builtin": {"dis": 1}, "l2": {"ima_weight": 2}, "ima": {"ima_mask": None}}
    assert read_arms(keys) == (
        Arm("none", "none", {"lr0": 0.1}),
        Arm("builtin", "builtin", {"dis": 1}),
        Arm("l2", "ima", {**NAMED["l2"].settings, "ima_weight": 2}),
        Arm("ima", "ima", {"ima_loss": "ima", "ima_mask": "none"}),
    )
    for like in ("none", None):  # what the command line makes of the word
        assert read_arms({"ima": {}, "plain": {"like": like, "lr0": 0.1}})[1] == Arm("plain", "none", {"lr0": 0.1})


def test_each_kind_gets_the_keys_that_it_knows() -> None:
    shared = {"model": "s.yaml", "epochs": 3}
    assert NAMED["none"].options(COMMON, "t.pt") == shared
    assert NAMED["builtin"].options(COMMON, "t.pt") == {**shared, "distill_model": "t.pt"}
    ours = {"teacher": "t.pt", "ima_mask_ratio": 0.3, "ima_loss": "mgd", "ima_cls": 0, "ima_box": 0}
    assert NAMED["mgd"].options(COMMON, "t.pt") == {**shared, **ours}


def test_an_arm_overrides_what_is_shared() -> None:
    arm = Arm("x", "ima", {"ima_mask_ratio": 0.9, "epochs": 1})
    assert arm.options(COMMON, "t.pt")["ima_mask_ratio"] == 0.9
    assert arm.options(COMMON, "t.pt")["epochs"] == 1


def test_what_has_a_value_for_each_teacher_is_checked_with_the_teachers() -> None:
    keys = {"ima_teacher_shares": [1, 3], "ima_teacher_weights": ["DEFAULT", "none"]}
    assert read_arms({"none": None, "x": keys})[1].settings == keys


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("none", "at least two"),
        ("none,none", "named twice"),
        ("none,imma", r"no arm 'imma' (did you mean 'ima'?)"),
        ({"none": None, "a/b": {}}, "cannot name a folder"),
        ({"none": None, "..": {}}, "cannot name a folder"),
        ({"none": None, "x": 3}, "expected a mapping"),
        ({"none": None, "x": {"ima_wieght": 1}}, "did you mean 'ima_weight'?"),
        ({"none": None, "x": {"ima_weight": -1}}, "ima_weight=-1"),
        ({"none": None, "x": {"ima_trust": True}}, "arm x: ima_trust= is for a training of its own"),
        ({"none": None, "x": {"save_dir": "mine"}}, "arm x: save_dir= is the study's own"),
        ({"none": None, "x": {"exist_ok": True}}, "arm x: exist_ok= is the study's own"),
        ({"none": None, "x": {"resume": "last.pt"}}, "arm x: resume= is the study's own"),
        ({"none": None, "x": {"seed": 3}}, "arm x: seed= is the study's own"),
        ({"none": None, "x": {"project": "p"}}, "arm x: project= is the study's own"),
        ({"none": None, "x": {"mode": "val"}}, "arm x: mode= is the study's own"),
        ({"none": None, "x": {"cfg": "http://127.0.0.1:9/x.yaml"}}, "arm x: cfg= is the study's own"),
        *(({"none": None, "x": {key: 1}}, f"arm x: {key}= has to be the same for all arms") for key in sorted(ALIKE)),
        ({"none": {"ima_weight": 1}, "x": {}}, "arm none: ima_weight= has no effect on 'none', which"),
        ({"none": None, "x": {"like": "imma"}}, "arm x: like=imma: there are none, builtin,"),
        ({"none": {"like": "ima"}, "x": {}}, "arm none: like=ima: a known arm is like itself"),
        ({"none": None, "x": {"like": ["none"]}}, "arm x: like=['none']: there are none, builtin,"),
        ({"none": None, "teacher": {}}, "'teacher' is what the report calls the teacher"),
        ({"none": None, "x": {"ima_holdout": 0.3}}, "arm x: 'ima_holdout' is not a setting"),
        ({"none": None, "x": {"teacher": "t.pt"}}, "models are the same for all arms"),
        ({"none": None, "x": {"student": "s.pt"}}, "models are the same for all arms"),
    ],
)
def test_a_wrong_arm_is_one_line(given: Any, message: str) -> None:
    with pytest.raises(IMAError) as caught:
        read_arms(given)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
