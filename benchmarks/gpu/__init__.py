"""Every table that waits for a GPU, in less than ten minutes."""
