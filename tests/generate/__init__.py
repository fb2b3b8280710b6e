"""Random legal models around batch normalizations, to attack the folds with."""
