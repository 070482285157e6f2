"""What Spark does to files: CSVs brought to a schema, and tables built by SQL."""
