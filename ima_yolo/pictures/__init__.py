"""Pictures of what models find: images by sources (ground truth, teacher, student), side by side in one PNG."""

from __future__ import annotations

from ima_yolo.pictures.column import Column
from ima_yolo.pictures.grid import side_by_side
from ima_yolo.pictures.sources import ground_truth_column, model_input, prediction_column
from ima_yolo.pictures.tile import as_rgb, class_colours

__all__ = [
    "Column",
    "as_rgb",
    "class_colours",
    "ground_truth_column",
    "model_input",
    "prediction_column",
    "side_by_side",
]
