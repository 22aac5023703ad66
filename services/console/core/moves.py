"""An organisation is told to live in another shard of the ledger; the owners of the two then move it."""

import msgspec

from services.console.core.changes import ChangeSet, one
from services.console.core.paths import org_named
from services.console.core.problem import Invalid
from shared.contracts.config import Org
from shared.directory import Directory


def org_of(directory: Directory, name: str) -> Org:
    """By slug or uid. Raises Invalid not_found 404."""
    if (org := org_named(directory, name)) is None:
        raise Invalid("id", f"there is no organisation `{name}`", "not_found", 404)
    return org


def move(directory: Directory, name: str, shard: str) -> ChangeSet:
    """Nothing but the shard changes; empty where it lives there already."""
    org = org_of(directory, name)
    return one(directory, org, msgspec.structs.replace(org, shard=shard), org.id)
