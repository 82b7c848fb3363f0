"""A paper's tables by one command: draws of data, rows of methods, paired runs."""
