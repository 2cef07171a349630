"""The service: recommendations of a run over HTTP."""
