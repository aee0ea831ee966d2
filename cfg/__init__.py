"""Shipped settings: `default.yaml` with every key, and complete recipes. Installed as `ima_yolo.cfg`."""
