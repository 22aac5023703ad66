"""What every request needs, made once in app.py."""

import asyncio

import msgspec

from services.edge.core.crowd import Crowd
from services.edge.core.lifecycle import Identity
from services.edge.core.policy import Policy
from services.edge.core.repeats import Repeats
from services.edge.settings import Settings
from services.edge.stores.catalogue import Catalogue
from services.edge.stores.credentials import Credentials
from services.edge.stores.lender import Lender
from services.edge.stores.owners import Owners
from services.edge.stores.presence import Presence
from services.edge.stores.spool import Spool
from services.edge.stores.upstream import UpstreamPool
from shared.clock import Clock
from shared.directory import Directory


class Wiring(msgspec.Struct, frozen=True, kw_only=True):
    """The edge's parts. directory: kept current in place by the follower of CONFIG. lender: reserves, the owner does the rest."""

    loop: asyncio.AbstractEventLoop
    settings: Settings
    me: Identity
    clock: Clock
    directory: Directory
    policy: Policy
    spool: Spool
    owner: Owners
    lender: Lender
    presence: Presence
    credentials: Credentials
    pool: UpstreamPool
    catalogue: Catalogue
    repeats: Repeats
    crowd: Crowd
