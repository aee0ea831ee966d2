"""ONNX export with parity, and a runtime without torch. Installed as `ima_yolo.export`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .onnx import ExportReport, export_onnx
    from .postprocess import Thresholds
    from .results import ClassMap, Detections
    from .runtime import Detector

__all__ = ["ClassMap", "Detections", "Detector", "ExportReport", "Thresholds", "export_onnx"]


def __getattr__(name: str) -> Any:
    """Load a name on its first use, so that the runtime never touches torch and `import ima_yolo` stays light."""
    if name in ("ExportReport", "export_onnx"):
        from . import onnx

        return getattr(onnx, name)
    if name == "Detector":
        from .runtime import Detector

        return Detector
    if name == "Thresholds":
        from .postprocess import Thresholds

        return Thresholds
    if name in ("ClassMap", "Detections"):
        from . import results

        return getattr(results, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
