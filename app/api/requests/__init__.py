"""Reads the body of a request: its fields, the files within it, and all faults at once."""
