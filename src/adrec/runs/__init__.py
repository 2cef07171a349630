"""The run folder and what trains into it."""
