"""What the tests and the benchmarks are made with: a module for each thing they need, no tests and no fixtures."""
