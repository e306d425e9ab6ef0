"""Partitioning strategy: which partition a row belongs to (protocol: Partitioning Strategy).

Partitions are disjoint and their union is the whole result, NULL keys included. A job declares a strategy
(:mod:`.declaration`); when a run is planned it becomes :mod:`.partitions`, plain values that assign a
partition to every key, the same in every attempt and on every machine.
"""
