"""What the protocol says: values and pure rules. No files, no network, no clock."""
