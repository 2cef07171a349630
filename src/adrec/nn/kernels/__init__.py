"""Optimised operations, each with a plain reference implementation that the tests compare it with."""
