"""Processors transform Arrow record batches."""
