"""What each command does beyond parsing and printing: one module a command."""
