"""Where scans are executed: threads, processes and whatever comes later."""
