"""From spec to plan: names are found, values typed, defaults merged, and the whole is judged."""
