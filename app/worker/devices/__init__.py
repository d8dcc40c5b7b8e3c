"""Devices: their memory, streams, compiled calls, and the ranks of a worker over several devices."""
