"""Models in float64: the second judge, which looks at every part, and the oracle."""
