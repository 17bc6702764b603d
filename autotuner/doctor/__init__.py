"""What tuning needs of a machine, whether it is there, and the command that fixes what is missing."""
