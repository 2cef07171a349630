"""ADRec: sequential recommendation with auto-regression and token-level diffusion."""
