"""Table 1 of arXiv 2505.21179 for any model: CLIP Score, FID, PFID, ImageReward, without and with NAG."""
