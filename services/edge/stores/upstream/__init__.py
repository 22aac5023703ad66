"""Connections to the model providers: HTTP/1.1 as asyncio protocols, kept alive per origin."""

from services.edge.stores.upstream.addresses import Addresses
from services.edge.stores.upstream.connection import Answer, Head, UpstreamConnection
from services.edge.stores.upstream.dialling import Dialler
from services.edge.stores.upstream.fetch import Fetched, fetch
from services.edge.stores.upstream.origin import Origin, origin_of
from services.edge.stores.upstream.pool import UpstreamPool
from services.edge.stores.upstream.proxies import Proxies
from services.edge.stores.upstream.trust import Trust

__all__ = [
    "Addresses",
    "Answer",
    "Dialler",
    "Fetched",
    "Head",
    "Origin",
    "Proxies",
    "Trust",
    "UpstreamConnection",
    "UpstreamPool",
    "fetch",
    "origin_of",
]
