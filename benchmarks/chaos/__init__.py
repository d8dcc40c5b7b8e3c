"""A whole service of several processes, and what is done to it while clients use it."""
