"""Inputs to compare on: sizes that run, values that show errors, what the graph says of both."""
