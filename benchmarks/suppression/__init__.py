"""Is a negative prompt obeyed, and at what price? Read from the pixels of an embedded model's images."""
