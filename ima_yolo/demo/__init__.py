"""The demo: a detection set that is drawn, not downloaded."""
