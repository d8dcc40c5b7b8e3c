"""The metrics: what each network is shown of a picture, and the number that comes of it."""
