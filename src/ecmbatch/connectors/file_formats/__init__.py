"""The formats that the ``files`` connector reads."""
