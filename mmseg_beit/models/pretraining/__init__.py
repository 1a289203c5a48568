"""Pre-training: tokenizers and masked image modelling."""
