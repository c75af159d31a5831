"""What things are: frozen records and enums, without I/O and without a clock."""
