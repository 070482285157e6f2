"""The gate before a load: suites, verdicts, quarantine, and what people read about them."""
