"""Turns pixels into files: images, videos, previews, and their metadata."""
