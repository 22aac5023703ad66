"""Who a request is attributed to, frozen at admission; uids only, names live in the directory."""

from shared.contracts.message import Part, Uid


class Principal(Part, frozen=True, kw_only=True):
    """The governed path of a request, from the tenant down to the key; tags as they stood at admission."""

    org: Uid = ""
    customer: Uid = ""
    team: Uid = ""
    key: Uid = ""
    project: Uid = ""
    provider_config: Uid = ""
    tags: dict[str, str] = {}


class Charge(Part, frozen=True, kw_only=True):
    """One budget, in one of its periods, that an attempt is booked on."""

    budget_id: str
    period_id: str
