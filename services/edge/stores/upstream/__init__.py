"""Connections to the model providers: HTTP/1.1 as asyncio protocols, kept alive per origin."""

from services.edge.stores.upstream.connection import Answer, Head, UpstreamConnection
from services.edge.stores.upstream.fetch import Fetched, fetch
from services.edge.stores.upstream.pool import Origin, UpstreamPool, origin_of

__all__ = ["Answer", "Fetched", "Head", "Origin", "UpstreamConnection", "UpstreamPool", "fetch", "origin_of"]
