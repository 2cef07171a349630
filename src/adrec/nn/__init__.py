"""Networks, attention, diffusion, losses and scores; independent of files and raw item ids."""
