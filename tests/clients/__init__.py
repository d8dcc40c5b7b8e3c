"""Popular clients, as their registries have them, against a whole service: `make clients`."""
