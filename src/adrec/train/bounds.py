"""The bounds of embedding collapse; :mod:`adrec.diagnose.verdict` explains them."""

STRUCTURE = 0.05
COMMON = 0.9
RANK = 0.1
OWN = 0.5
