"""OpenLineage: telling others what runs read, what they wrote, and how that went."""
