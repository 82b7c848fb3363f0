"""Media files: spans as frames and samples, packs of clips, and spectrograms."""
