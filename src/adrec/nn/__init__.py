"""The mathematics: attention, diffusion, the networks and their losses; nothing here knows of files or ids."""
