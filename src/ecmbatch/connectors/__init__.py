"""Connectors read a source as Arrow record batches."""
