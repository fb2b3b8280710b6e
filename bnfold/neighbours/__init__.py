"""bnfold inside the tools of others: pass managers, optimizers, viewers.

Each module needs the package that it is named after, and is imported by its users alone.
"""
