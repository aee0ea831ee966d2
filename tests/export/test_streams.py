"""Streams from a server on this machine, and cameras, which a stand-in for OpenCV's plays."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ima_yolo.cli import main
from ima_yolo.export import fetched, videos
from ima_yolo.export.predict import run

RAW = np.array([[[32, 32, 32, 16, 0.1, 0.9]]]).transpose(0, 2, 1)
FRAMES = 30


@contextmanager
def server(body: Callable[[int], bytes], frames: int = FRAMES) -> Iterator[str]:
    """Serve an endless-looking MJPEG stream of some parts, each `body(number)`; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            try:
                for number in range(frames):
                    data = body(number)
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                    self.wfile.write(head.encode() + data + b"\r\n")
            except OSError:  # the reader has seen enough
                pass

        def log_message(self, *_: Any) -> None:
            pass

    with serving(Handler) as address:
        yield f"{address}/live.mjpg"


@contextmanager
def pictures(content: bytes) -> Iterator[str]:
    """Serve a picture as a.png and nothing else; gives the address of its folder."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self.path.startswith("/a.png"):
                self.send_error(404)
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    with serving(Handler) as address:
        yield address


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Answer requests on this machine; gives the address."""
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()


def jpeg(number: int) -> bytes:
    return cv2.imencode(".jpg", np.full((100, 200, 3), 8 * number, np.uint8))[1].tobytes()


def frames_in(lines: list[str]) -> list[int]:
    return [int(line.split(" frame ")[1].split(":")[0]) for line in lines if " frame " in line]


def test_a_stream_is_read_drawn_and_left(toy: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    with server(jpeg) as address:
        words = [f"model={toy(RAW)}", f"source={address}", "max_frames=4", "vid_stride=2", "save_json=True"]
        assert main(["predict", *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert frames_in(lines) == [0, 2, 4, 6]
    assert all(": 200x100 1 square" in line for line in lines[:4])
    records = json.loads(Path("runs/detect/predict/predictions.json").read_text())
    assert [(r["image"], r["frame"], len(r["detections"])) for r in records] == [(address, n, 1) for n in (0, 2, 4, 6)]
    (video,) = Path("runs/detect/predict").glob("*.mp4")
    assert cv2.VideoCapture(str(video)).get(cv2.CAP_PROP_FRAME_COUNT) == 4


def test_a_stream_to_its_end(toy: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    with server(jpeg) as address:
        assert run(toy(RAW), address, save=False) == 0
    seen = frames_in(capsys.readouterr().out.splitlines())
    assert seen == list(range(len(seen)))
    assert len(seen) >= FRAMES - 1  # a reader of MJPEG knows the last picture's end by the next one's beginning


def test_a_stream_that_falls_silent_is_told(
    toy: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(videos, "OPEN_TIMEOUT", 1500)
    held = threading.Event()

    def body(number: int) -> bytes:
        if number == 5:
            held.wait(20)
        return jpeg(number)

    with server(body) as address:
        assert run(toy(RAW), address, save=False) == 1
        held.set()
    *_, silent, last = capsys.readouterr().out.splitlines()
    assert re.search(r"left out \(gives no more after [345] frames, in [12] s\)$", silent)
    assert last.endswith("1 pictures could not be read")


STOPPED = """
import sys
from ima_yolo.cli import main
sys.exit(main(["predict", *sys.argv[1:]]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals of POSIX")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_request_to_end_leaves_whole_files(name: str, toy: Callable[..., Path]) -> None:
    """`docker stop` asks by SIGTERM, a terminal that closes by SIGHUP."""
    held = threading.Event()

    def body(number: int) -> bytes:
        held.wait(0.05)
        return jpeg(number % 30)

    with server(body, frames=10_000) as address:
        words = [f"model={toy(RAW)}", f"source={address}", "save_json=True", "save_coco=True", "save_csv=True"]
        command = [sys.executable, "-c", STOPPED, *words]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if " frame 3:" in line:
                    break
            process.send_signal(getattr(signal, name))
            told = process.stdout.read().splitlines()
            assert process.wait(60) == 0
    assert told[-2:] == ["stopped", f"Results saved to {Path('runs/detect/predict')}"]
    folder = Path("runs/detect/predict")
    seen = [record["frame"] for record in json.loads((folder / "predictions.json").read_text())]
    assert seen == list(range(len(seen)))
    assert len(seen) >= 4
    assert len(json.loads((folder / "coco.json").read_text())) == len(seen)
    (video,) = folder.glob("*.mp4")
    assert cv2.VideoCapture(str(video)).get(cv2.CAP_PROP_FRAME_COUNT) == len(seen)


def test_no_password_is_shown_or_written(toy: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    with server(jpeg) as address:
        secret = address.replace("://", "://me:hush@")
        main(["predict", f"model={toy(RAW)}", f"source={secret}", "max_frames=1", "save_json=True", "save_csv=True"])
    captured = capsys.readouterr()
    assert f"{address.replace('://', '://***@')} frame 0" in captured.out
    assert "hush" not in captured.out + captured.err
    for file in Path("runs/detect/predict").iterdir():
        assert "hush" not in file.name
        assert b"hush" not in file.read_bytes()


def test_a_stream_of_no_pictures_is_told_and_the_rest_goes_on(
    toy: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((100, 200, 3), np.uint8))
    with server(lambda number: b"no picture") as address:
        assert run(toy(RAW), [address, str(tmp_path / "a.png")], save=False) == 1
    first, second, last = capsys.readouterr().out.splitlines()
    assert f"{address}: cannot be read, left out (" in first
    assert second.startswith(f"image 2 {tmp_path / 'a.png'}: 200x100 1 square")
    assert last.endswith("1 pictures could not be read")


def test_a_server_that_says_nothing_is_left(
    toy: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(videos, "OPEN_TIMEOUT", 1000)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        start = time.monotonic()
        assert run(toy(RAW), f"http://127.0.0.1:{mute.getsockname()[1]}/x.mjpg", save=False) == 1
        assert time.monotonic() - start < 20
    assert "cannot be read, left out (" in capsys.readouterr().out


def test_a_picture_by_its_address(toy: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    content = cv2.imencode(".png", np.zeros((100, 200, 3), np.uint8))[1].tobytes()
    with pictures(content) as folder:
        words = [f"model={toy(RAW)}", f"source={folder}/a.png?size=full,{folder}/gone.png"]
        assert main(["predict", *words, "save_csv=True"]) == 1
    first, second, last = capsys.readouterr().out.splitlines()
    assert first.startswith(f"image 1/2 {folder}/a.png?size=full: 200x100 1 square, ")
    assert second.startswith(
        f"image 2/2 {folder}/gone.png: cannot be read, left out (cannot be fetched (HTTP Error 404"
    )
    assert last.endswith(", 1 pictures could not be read")
    names = sorted(path.name for path in Path("runs/detect/predict").iterdir())
    assert len(names) == 2
    assert "predictions.csv" in names


@pytest.mark.parametrize("content", [b"", b"no picture"])
def test_what_lies_there_is_no_picture(
    content: bytes, toy: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with pictures(content) as folder:
        assert run(toy(RAW), f"{folder}/a.png", save=False) == 1
    assert "cannot be read, left out (is " in capsys.readouterr().out


def test_a_picture_larger_than_can_be_meant(
    toy: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fetched, "MOST_BYTES", 2**20)
    with pictures(bytes(2**20 + 1)) as folder:
        assert run(toy(RAW), f"{folder}/a.png", save=False) == 1
    assert "left out (cannot be fetched (larger than 1 MB))" in capsys.readouterr().out


class Camera:
    """What OpenCV gives for a camera: two frames, then as many as the user has patience for, or a pulled plug."""

    opened: int | None = None
    plug = False

    def __init__(self, index: int) -> None:
        type(self).opened = index
        self.taken = 0

    def isOpened(self) -> bool:  # noqa: N802
        return self.opened == 0

    def get(self, _: int) -> float:
        return 25.0

    def grab(self) -> bool:
        if self.taken == 2 and not self.plug:
            raise KeyboardInterrupt  # as Ctrl-C does
        self.taken += 1
        return self.taken <= 2

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return True, np.zeros((100, 200, 3), np.uint8)

    def release(self) -> None:
        pass


@pytest.mark.parametrize("plug", [False, True])
def test_a_camera_until_it_is_stopped(
    plug: bool, toy: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(videos.cv2, "VideoCapture", Camera)
    monkeypatch.setattr(Camera, "plug", plug)
    code = main(["predict", f"model={toy(RAW)}", "source=0", "save=False", "save_json=True", "save_csv=True"])
    lines = capsys.readouterr().out.splitlines()
    assert frames_in(lines) == [0, 1]
    assert (code, "stopped" in lines) == ((1, False) if plug else (0, True))
    assert ("image 3 0: cannot be read, left out (gives no more after 2 frames)" in lines) is plug
    assert len(json.loads(Path("runs/detect/predict/predictions.json").read_text())) == 2
    assert len(Path("runs/detect/predict/predictions.csv").read_text().splitlines()) == 3


def test_a_camera_that_is_not_there(
    toy: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(videos.cv2, "VideoCapture", Camera)
    assert main(["predict", f"model={toy(RAW)}", "source=1", "save=False"]) == 1
    assert "image 1 1: cannot be read, left out (cannot be opened as a video, stream or camera)" in (
        capsys.readouterr().out
    )


def test_a_camera_of_a_number_that_no_system_counts_to(
    toy: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", f"model={toy(RAW)}", "source=99999999999999999999", "save=False"]) == 1
    assert "cannot be read, left out (cannot be opened as a video, stream or camera)" in capsys.readouterr().out
