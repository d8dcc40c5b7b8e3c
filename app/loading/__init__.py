"""From a catalog entry to a diffusers pipeline on a device: its files, sizes, checks, weights and adapters."""
