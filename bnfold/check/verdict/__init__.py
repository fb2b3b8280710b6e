"""From outputs to a verdict: noise, comparison, and what is said beside it."""
