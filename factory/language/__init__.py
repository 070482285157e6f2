"""From text to spec: YAML is read, its form is checked, and every mistake gets its position."""
