"""The bounds beyond which a space has collapsed; :mod:`adrec.diagnose.verdict` says why there."""

STRUCTURE = 0.05
COMMON = 0.9
RANK = 0.1
OWN = 0.5
