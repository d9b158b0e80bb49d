"""A hospital, its day and its partners, simulated: what the demo, the benchmarks and the crash tests run on."""
