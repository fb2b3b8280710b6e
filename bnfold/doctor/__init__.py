"""What is installed, what of it works, and how to repair the rest.

`needs` reads what bnfold requires, `installed` what is there, `trials` tries it in child
processes, `machine` looks at the computer; `examine` judges all of it.
"""
