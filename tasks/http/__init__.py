"""What a server answers over HTTP: a file, a few values, or rows page by page."""
