"""What may happen: pure functions, without I/O and without a clock of their own."""
