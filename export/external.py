"""Does an ONNX file keep weights in other files? ONNX Runtime would read those that it names.

Read off the file's bytes, since a device that runs models has no library for their format (protocol buffers: a field is
a number and a wire type, then a varint, eight bytes, a length and as many bytes, or four bytes).
"""

from __future__ import annotations

from ima_yolo.errors import IMAError

TENSOR = "tensor"
INSIDE = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: TENSOR, 15: "sparse"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: TENSOR, 6: "graph", 10: TENSOR, 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: TENSOR, 2: TENSOR},
    TENSOR: {},
}
"""Kind of a message -> its fields that may hold a tensor, by number, and what they are (onnx.proto)."""

OWN_FORMAT = b"ORTM"
"""What stands in bytes 4 to 7 of a file in ONNX Runtime's own format, which it opens under any name."""

EXTERNAL_DATA, DATA_LOCATION = 13, 14
VARINT, EIGHT_BYTES, LENGTH, FOUR_BYTES = 0, 1, 2, 5


def check_alone(content: bytes, source: str) -> None:
    """Refuse a model that would have other files read.

    Args:
        content: Of an ONNX file.
        source: The file, for the message.

    Raises:
        IMAError: It would, or it is no ONNX file.
    """
    if content[4:8] == OWN_FORMAT:
        raise IMAError(f"model={source}: in ONNX Runtime's own format (.ort); give the .onnx file that it was made of")
    try:
        elsewhere = keeps_data_elsewhere(content)
    except ValueError as error:
        raise IMAError(f"model={source}: not a loadable ONNX file ({error}); export it again") from error
    if elsewhere:
        raise IMAError(f"model={source}: refused, since its weights are in another file; export it again, as one file")


def keeps_data_elsewhere(content: bytes) -> bool:
    """Whether a tensor of a model, wherever it stands, names a file.

    Args:
        content: A serialized `ModelProto`.

    Raises:
        ValueError: It is none.
    """
    if b"location" not in content:  # the key of such an entry; few files come to the walk
        return False
    waiting = [("model", 0, len(content))]
    while waiting:
        kind, at, end = waiting.pop()
        while at < end:
            number, wire, at, length = _field(content, at, end)
            if kind == TENSOR and (number == EXTERNAL_DATA or (number == DATA_LOCATION and length)):
                return True
            if wire == LENGTH:
                if number in INSIDE[kind]:
                    waiting.append((INSIDE[kind][number], at, at + length))
                at += length
    return False


def _field(content: bytes, at: int, end: int) -> tuple[int, int, int, int]:
    """Number, wire type, the place after it, and its length in bytes, of a varint its value."""
    tag, at = _varint(content, at, end)
    if not 8 <= tag < 1 << 32:  # a reader of the format drops the bits above, or stops
        raise ValueError(f"tag {tag}")
    wire, value = tag & 7, 0
    if wire in (VARINT, LENGTH):
        value, at = _varint(content, at, end)
    elif wire in (EIGHT_BYTES, FOUR_BYTES):
        at += 8 if wire == EIGHT_BYTES else 4
    else:
        raise ValueError(f"wire type {wire}")
    if at + (value if wire == LENGTH else 0) > end or (wire == LENGTH and value >= 1 << 31):
        raise ValueError("truncated")
    return tag >> 3, wire, at, value


def _varint(content: bytes, at: int, end: int) -> tuple[int, int]:
    value, shift = 0, 0
    while at < end and shift < 70:
        byte = content[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
    raise ValueError("truncated")
