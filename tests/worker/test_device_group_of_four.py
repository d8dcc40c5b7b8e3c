"""A worker over four ranks: Ulysses in pairs, and a ring of both pairs."""

from __future__ import annotations
