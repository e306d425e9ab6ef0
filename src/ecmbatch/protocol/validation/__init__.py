"""Quality validation: rules, the observations they count, and the verdict (protocol: Quality Validation)."""
