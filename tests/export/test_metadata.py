"""The metadata of an exported file: every kind of graph told apart, every damage named."""

from __future__ import annotations

import pytest

from ima_yolo.errors import IMAError
from ima_yolo.export.metadata import GraphKind, parse_metadata

WRITTEN = {
    "task": "detect",
    "names": "{0: 'RBC', 1: 'WBC'}",
    "stride": "32",
    "imgsz": "[224, 320]",
    "head": "Detect",
    "end2end": "False",
    "channels": "3",
    "args": "{'batch': 1, 'nms': None, 'quantize': 16}",
}


def test_values_are_typed() -> None:
    metadata = parse_metadata(WRITTEN, "x.onnx")
    assert metadata.names == {0: "RBC", 1: "WBC"}
    assert metadata.imgsz == (224, 320)
    assert (metadata.stride, metadata.channels, metadata.end2end) == (32, 3, False)
    assert metadata.args["quantize"] == 16


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, GraphKind.RAW),
        ({"end2end": "True"}, GraphKind.NMS_FREE),
        ({"args": "{'nms': True}"}, GraphKind.NMS_EMBEDDED),
        ({"args": "{'nms': False}"}, GraphKind.RAW),
        ({"head": "RTDETRDecoder"}, GraphKind.QUERIES),
        ({"task": "semantic"}, GraphKind.DENSE),
    ],
)
def test_kind_is_told_from_metadata(changes: dict[str, str], kind: GraphKind) -> None:
    assert parse_metadata({**WRITTEN, **changes}, "x.onnx").kind is kind


def test_older_files_without_the_newer_keys_are_raw() -> None:
    old = {key: WRITTEN[key] for key in ("task", "names", "stride", "imgsz")}
    metadata = parse_metadata(old, "x.onnx")
    assert (metadata.kind, metadata.channels) == (GraphKind.RAW, 3)


def test_what_a_terminal_would_obey_is_no_part_of_a_name() -> None:
    names = {0: "a\r\nb", 1: "\x1b[2Jred", 2: "\u2028x\u0085", 3: "\ud800", 4: "白血球 é"}
    found = parse_metadata({**WRITTEN, "names": repr(names)}, "x.onnx").names
    assert found == {0: "a b", 1: " [2Jred", 2: " x ", 3: " ", 4: "白血球 é"}


@pytest.mark.parametrize("key", ["task", "names", "stride", "imgsz"])
def test_a_missing_key_is_named(key: str) -> None:
    rest = {k: v for k, v in WRITTEN.items() if k != key}
    with pytest.raises(IMAError, match=rf"^x\.onnx: no Ultralytics metadata \({key} missing\)"):
        parse_metadata(rest, "x.onnx")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("names", "{0: 'RBC'"),
        ("names", "['RBC']"),
        ("names", "{1: 'RBC'}"),
        ("names", "{}"),
        ("names", "{0: 7}"),
        ("names", "__import__('os').system('true')"),
        ("imgsz", "[224]"),
        ("imgsz", "[224, -1]"),
        ("imgsz", "[224.0, 224]"),
        ("stride", "0"),
        ("stride", "True"),
        ("end2end", "2"),
        ("args", "[" * 5000),
        ("args", "-" * 100000 + "1"),
        ("args", "{[]: 1}"),
        ("channels", "three"),
    ],
)
def test_damage_is_one_line_that_names_the_key(key: str, value: str) -> None:
    with pytest.raises(IMAError, match=rf"^x\.onnx: metadata {key}=") as caught:
        parse_metadata({**WRITTEN, key: value}, "x.onnx")
    assert "\n" not in str(caught.value)
