"""One data set a file: annotations to clip tables."""
