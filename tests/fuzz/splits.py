"""How the same bytes may arrive."""

import random
import zlib


def split(data: bytes) -> list[bytes]:
    """In a few parts, or one by one, as the bytes themselves decide: a case is the same each time it is tried."""
    rng = random.Random(zlib.crc32(data))
    if rng.random() < 0.1 and len(data) < 2000:
        return [data[at : at + 1] for at in range(len(data))]
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(1, 6)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True) if end > start]
