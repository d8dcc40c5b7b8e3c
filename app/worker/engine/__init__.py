"""Runs images and videos as pipeline calls, and joins the module calls that they share."""
