"""What happens: plan, run, recover, validate, publish."""
