"""Builds answers: their shapes, errors, event streams and files. A finished job reports what was really used."""
