"""The processes that stay: scheduler, workers, and what they tell about themselves."""
