"""What benchmarks share: load, tables of figures, other libraries to compare with."""
