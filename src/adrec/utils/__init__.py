"""Errors, files, tables and text."""
