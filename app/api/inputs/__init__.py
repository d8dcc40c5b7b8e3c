"""Loads, checks and decodes the images and videos that a request starts from."""
