"""Making runs when they are due, and executing them: what a scheduler and a worker do over one ledger."""
