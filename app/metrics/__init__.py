"""What is measured: declared once in `definitions`, and who counts it.

What becomes of a job is counted in Redis, in the same script that ends it (`queue/scripts/counts.lua`): once in the
whole service, whichever process dies. What a process does is counted in that process.
"""

from app.metrics.api import Metrics

__all__ = ["Metrics"]
