"""Reads access logs of web servers in the Combined Log Format."""

from ecmbatch_access_log.connector import ACCESS_LOG, AccessLogConnector, AccessLogSettings

__all__ = ["ACCESS_LOG", "AccessLogConnector", "AccessLogSettings"]
