from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ima_yolo.errors import IMAError
from ima_yolo.experiment.arms import NAMED, Arm
from ima_yolo.experiment.calls import claimed
from ima_yolo.experiment.study import Study


def make(folder: Path, arms: str = "none,ima", seeds: tuple[int, ...] = (0, 1)) -> Study:
    return Study(folder, {}, {}, {}, tuple(NAMED[name] for name in arms.split(",")), seeds)


@pytest.mark.parametrize("other", [{"arms": "none,cwd"}, {"seeds": (0, 1, 2)}])
def test_arms_and_seeds_stay_while_a_call_trains_them(tmp_path: Path, other: dict[str, Any]) -> None:
    """Its trainings look themselves up in the study, and failed where they stood there no more."""
    with claimed(make(tmp_path)):
        with pytest.raises(IMAError, match="with other arms or seeds; wait until"), claimed(make(tmp_path, **other)):
            pass
        with claimed(make(tmp_path, "ima,none", (1, 0))):
            pass
        with pytest.raises(IMAError, match="another call is training there"), claimed(make(tmp_path), grows=True):
            pass
    study = make(tmp_path)
    mended = Study(**{**vars(study), "arms": (study.arms[0], Arm("ima", "ima", {"ima_weight": 1}))})
    with claimed(study), pytest.raises(IMAError, match="with other arms or seeds"), claimed(mended):
        pass
    searching, same = claimed(make(tmp_path, **other), grows=True), claimed(make(tmp_path, **other))
    with searching, pytest.raises(IMAError, match="another call is training there"), same:
        pass
    assert [path.name for path in (tmp_path / "locks" / "calls").iterdir()] == []


def test_what_a_killed_call_leaves_stands_in_nobodys_way(tmp_path: Path) -> None:
    left = tmp_path / "locks" / "calls" / "killed.lock"
    left.parent.mkdir(parents=True)
    left.touch()
    left.with_suffix(".json").write_text("{}")
    with claimed(make(tmp_path)):
        assert not left.exists()
        assert not left.with_suffix(".json").exists()
