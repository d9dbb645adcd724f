"""Series of samples and model weights on disk."""
