"""The two models under comparison, and what makes them ready to run."""
