"""What tuning needs of a machine, whether it is there, and the command that mends what is not."""
