"""The metrics: what each network is shown of an image, and the number that comes of it."""
