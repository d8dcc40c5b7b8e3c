"""The models of a worker: which it serves, loading and eviction, LoRAs, and the warm-up of a loaded model."""
