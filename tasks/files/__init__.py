"""The files that steps hand to each other, and their history."""
