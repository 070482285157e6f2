"""The files that steps pass to each other, and their history."""
