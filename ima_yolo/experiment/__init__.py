"""Experiments: the same training under several arms and seeds, compared in pairs."""
