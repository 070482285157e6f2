"""From spec to plan: names are looked up, values typed, defaults merged, and the whole is checked."""
