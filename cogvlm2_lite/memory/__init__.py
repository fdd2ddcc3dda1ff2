"""Which weights are in memory when: a plan made from numbers alone, and its execution."""
