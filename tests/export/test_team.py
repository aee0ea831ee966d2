"""Several runs at the same time: the same results in the same order, and only of the file that was opened."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from ima_yolo.errors import IMAError
from ima_yolo.export import Detector
from ima_yolo.export.postprocess import Thresholds
from ima_yolo.export.team import Team

RAW = np.array([[[32, 32, 32, 16, 0.1, 0.9]]]).transpose(0, 2, 1)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_a_list_gives_what_its_pictures_give(count: int, graphs: dict[str, Path], photos: list[Path]) -> None:
    images = [cv2.resize(cv2.imread(str(photos[n % 2])), (90 + 20 * n, 150 - 9 * n)) for n in range(count)]
    expected = [Detector(graphs["raw"], threads=1)(image) for image in images]
    found = Detector(graphs["raw"], threads=2).detect(images, Thresholds())
    assert sum(len(result) for result in expected) > 0
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours.boxes, theirs.boxes)
        np.testing.assert_array_equal(ours.classes, theirs.classes)


IN_A_CHILD = """
import os, signal, sys
import cv2
import numpy as np
from ima_yolo.export import Detector
from ima_yolo.export.postprocess import Thresholds
images = [cv2.imread(name) for name in sys.argv[2:]] * 3
detector = Detector(sys.argv[1], threads=2)
expected = detector.detect(images, Thresholds())
child = os.fork()
if not child:
    signal.alarm(60)  # ends a child that waits for threads which it does not have
    alike = all(
        np.array_equal(one.boxes, other.boxes)
        for found in (detector.detect(images, Thresholds()), [detector(image) for image in images])
        for one, other in zip(found, expected, strict=True)
    )
    os._exit(0 if alike and len(expected[0]) else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_has_threads_of_its_own(graphs: dict[str, Path], photos: list[Path]) -> None:
    words = [sys.executable, "-c", IN_A_CHILD, graphs["raw"], *photos]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_full_rounds_by_as_many_threads_and_the_rest_by_nobody(toy: Callable[..., Path]) -> None:
    together, names = threading.Barrier(3, timeout=60), set()

    def work(part: int, session: object) -> int:
        together.wait()  # passes only if three are at work at the same time
        names.add(threading.current_thread().name)
        assert session.get_session_options().intra_op_num_threads == 1
        return part * part

    team = Team(toy(RAW), 3)
    assert team.map(work, [1, 2, 3, 4, 5, 6, 7, 8]) == [1, 4, 9, 16, 25, 36]
    assert len(names) == 3
    assert team.map(work, [1, 2]) == []
    assert Team(toy(RAW), 1).map(work, [1, 2]) == []


def test_a_file_that_was_replaced_is_not_mixed_in(toy: Callable[..., Path]) -> None:
    detector = Detector(toy(RAW), threads=2)
    other = RAW.copy()
    other[0, 5] = 0.7
    toy(other)
    images = [np.zeros((64, 64, 3), np.uint8)] * 4
    scores = [found.scores.tolist() for found in detector.detect(images, Thresholds())]
    assert scores == [pytest.approx([0.9])] * 4


def test_a_part_that_fails_tells_so(toy: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    detector = Detector(toy(RAW), threads=2)
    monkeypatch.setattr(detector, "_input", "no such input")
    with pytest.raises(IMAError, match="could not run it"):
        detector.detect([np.zeros((64, 64, 3), np.uint8)] * 2, Thresholds())
