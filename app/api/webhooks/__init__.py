"""Telling a caller's own server what has become of a job: signed, tried again, and never into a private network."""
