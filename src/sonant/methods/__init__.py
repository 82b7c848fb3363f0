"""Methods: a file a paper, the method first, its recipes under it."""
