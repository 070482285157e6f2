"""How tables drift away from what they were."""
