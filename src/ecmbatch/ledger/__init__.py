"""What is remembered: runs, attempts, partitions, checkpoints, verdicts, alerts."""
