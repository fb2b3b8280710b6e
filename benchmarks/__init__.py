"""Measurements side by side with the peers: cost of a fold, and speed of what comes out."""
