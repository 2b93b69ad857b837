"""Real and made-up events for the demo, the tests and the benchmarks."""
