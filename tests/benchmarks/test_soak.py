"""Whether anything grows: a short soak, a leak that is seen, and what was measured."""

from __future__ import annotations

import json
from pathlib import Path

from committed import REPOSITORY


def test_the_soak_as_measured_grew_nowhere_and_is_what_the_readme_says() -> None:
    found = json.loads((REPOSITORY / "benchmarks" / "results" / "soak.json").read_text())
    assert found["asked"] == {"steps": 2000, "runs": 50}
    grown = [found[part]["growth"] for part in ("steps", "runs")]
    assert found["steps"]["grown"] == found["runs"]["grown"] == []
    assert all(more <= 0 for part in grown for key, more in part.items() if key != "MB")
    steps, runs = (f"{part['MB']:+.1f} MB" for part in grown)
    said = f"over 2,000 steps {steps}, over 50 trainings {runs}, everything else +0"
    assert said in (REPOSITORY / "README.md").read_text()


def test_a_short_soak_and_what_would_fail_it(tmp_path: Path) -> None:
    from soak import growth, has_grown, soak

    said: list[str] = []
    found = soak(40, 5, tmp_path, said.append)
    assert len(said) == 4 + 5
    assert found["steps"]["first"]["hooks"] == found["runs"]["last"]["hooks"] == 0
    for part in ("steps", "runs"):
        assert [key for key in found[part]["grown"] if key != "MB"] == [], "so few say nothing about memory"
    flat = {"MB": 100.0, "threads": 2.0, "files": 9.0, "hooks": 0.0, "modules": 50.0, "tensors": 300.0}
    assert has_grown(growth([flat] * 50)) == []
    for key, value in flat.items():
        leaking = [{**flat, key: value + number} for number in range(50)]
        assert has_grown(growth(leaking)) == [key]


def test_a_leak_is_seen(tmp_path: Path) -> None:
    """Of one tensor a step and one hook a training."""
    import torch
    from soak import sample

    before = sample()
    kept = [torch.zeros(1) for _ in range(30)]
    layer = torch.nn.Identity()
    layer.register_forward_hook(lambda *_: None)
    with (tmp_path / "open").open("w"):
        after = sample()
    assert after["tensors"] - before["tensors"] == len(kept)
    assert after["hooks"] - before["hooks"] == after["modules"] - before["modules"] == 1
    assert after["files"] - before["files"] == 1
