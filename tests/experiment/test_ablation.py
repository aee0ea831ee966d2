from __future__ import annotations

from typing import Any

import pytest

from ima_yolo.commands.info import EXAMPLES
from ima_yolo.config import Settings
from ima_yolo.errors import IMAError
from ima_yolo.experiment.ablation import LESS, read_ablation


def settings_of(arm: Any) -> Settings:
    return Settings(teacher="t.pt", **arm.settings)


def test_the_papers_table_adds_one_part_a_row() -> None:
    arms, against = read_ablation("parts")
    assert [arm.name for arm in arms] == ["none", "plain", "plus-mask", "plus-standardization", "plus-deflation"]
    rows = [settings_of(arm) for arm in arms[1:]]
    parts = [(s.ima_mask != "none", s.ima_standardize != "none", s.ima_deflation != "none") for s in rows]
    assert parts == [(False,) * 3, (True, False, False), (True, True, False), (True, True, True)]
    assert rows[-1] == Settings(teacher="t.pt", ima_cls=0, ima_box=0), "the last row is the whole method of the paper"
    assert [s.restore for s in rows] == ["none", "light", "light", "light"], "plain distillation has no generator"
    assert against == ("none", "plain", "plus-mask", "plus-standardization")


def test_the_default_less_each_part_is_one_word() -> None:
    arms, against = read_ablation("default")
    assert [arm.name for arm in arms[:2]] == ["none", "ima"]
    assert against == ("none", "ima")
    whole = settings_of(arms[1])
    changed = {
        arm.name: {key for key in Settings.model_fields if getattr(settings_of(arm), key) != getattr(whole, key)}
        for arm in arms[2:]
    }
    assert changed == {
        "no-mask": {"ima_mask"},
        "no-generator": {"ima_generator"},
        "no-standardization": {"ima_standardize"},
        "no-deflation": {"ima_deflation"},
        "no-features": {"ima_weight", "ima_cls", "ima_box"},
        "no-heads": {"ima_cls", "ima_box"},
        "no-gate": {"ima_gate"},
        "no-balance": {"ima_balance"},
        "no-cls": {"ima_cls"},
        "no-box": {"ima_box"},
    }
    assert not any(settings_of(arm).without_effect for arm in arms[2:]), "each part is one of the default"
    assert settings_of(arms[2]).restore == "none", "without a mask there is nothing to restore"
    weights = {arm.name: settings_of(arm).with_heads(usable=True, watched=True).ima_weight_ratio for arm in arms[1:]}
    assert {name for name, weight in weights.items() if weight == 0.1} == {"no-heads", "no-gate"}, "as for any user"
    assert set(weights.values()) == {0.1, 0.5}
    some, _ = read_ablation("default", "deflation,mask")
    assert [arm.name for arm in some] == ["none", "ima", "no-deflation", "no-mask"]


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("mask", ["mask-spatial", "mask-frequency", "mask-none"]),
        ("ima_instance", ["instance-image", "instance-box"]),
        ("deflation", [f"deflation-{form}" for form in ("weight", "shifted", "floor", "cosine", "none")]),
        ("objects", ["objects-none", "objects-gt", "objects-teacher"]),
        ("standardize", ["standardize-both", "standardize-student", "standardize-none"]),
        ("gate", ["gate-True", "gate-False"]),
        ("generator", ["generator-light", "generator-conv", "generator-none"]),
    ],
)
def test_each_open_reading_is_one_word(what: str, names: list[str]) -> None:
    arms, against = read_ablation(what)
    assert [arm.name for arm in arms] == ["none", *names]
    assert against == ("none", names[0]), "the default is what the others are compared with"


def test_a_number_takes_values_and_a_choice_a_part_of_its_own() -> None:
    arms, against = read_ablation("mask_ratio", (0.1, 0.5))
    assert [arm.settings for arm in arms[1:]] == [{"ima_mask_ratio": 0.1}, {"ima_mask_ratio": 0.5}]
    assert against == ("none", "mask_ratio-0.5")
    assert [arm.name for arm in read_ablation("mask", "frequency,none")[0]] == ["none", "mask-frequency", "mask-none"]
    assert [arm.name for arm in read_ablation("weight", ("auto", 1))[0]] == ["none", "weight-auto", "weight-1"]


def test_a_reading_brings_what_it_needs_to_be_used() -> None:
    arms, _ = read_ablation("boxes")
    assert all(arm.settings["ima_instance"] == "box" for arm in arms[1:])
    assert not any(settings_of(arm).without_effect for arm in arms[1:])
    sure, _ = read_ablation("teacher_conf", (0.1, 0.5))
    assert not any(settings_of(arm).without_effect for arm in sure[1:])
    assert read_ablation("temperature", (1, 4))[0][1].settings == {"ima_loss": "cwd", "ima_temperature": 1.0}
    gates = {arm.name: arm.settings["ima_weight_ratio"] for arm in read_ablation("gate")[0][1:]}
    assert gates == {"gate-True": 0.5, "gate-False": 0.5}, "the ratio that is left to us follows the gate"


@pytest.mark.parametrize(
    ("what", "values", "message"),
    [
        ("maskk", None, "what=maskk: there is no such part (did you mean 'mask'?)"),
        ("teacher", None, "there is no such part"),
        ("mask_ratio", None, "values=0.1,0.5,0.9"),
        ("levels", None, "what=levels: has no choices of its own; say which with values="),
        ("weight", (1, 1.0), "at least two different values"),
        ("mask_ratio", 0.5, "at least two different values"),
        ("mask_ratio", (0.5, 2), "ima_mask_ratio=2"),
        ("mask", "spatial,wavelet", "ima_mask=wavelet"),
        ("parts", 3, "what=parts has none"),
        ("default", "masks", "values=masks: the default has no such part (did you mean 'mask'?); there are mask,"),
        ("default", "mask,mask", "each once"),
        ("default", (), "say which parts"),
    ],
)
def test_what_cannot_be_ablated_is_one_line(what: Any, values: Any, message: str) -> None:
    with pytest.raises(IMAError) as caught:
        read_ablation(what, values)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_help_names_every_part_that_can_be_left_out() -> None:
    listed = " ".join(EXAMPLES["ablate"].split()).partition("default (less ")[2].partition(":")[0]
    assert listed.split(", ") == list(LESS)
