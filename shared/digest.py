"""The short name of a conversation: by it a request that is sent again is known, at whichever edge."""

import msgspec
import xxhash


def body_digest(messages: bytes | msgspec.Raw) -> bytes:
    """XXH3 of the bytes of `messages` as sent, 128 bits: a tenth of what SHA-256 costs on bodies of 75 kB.

    It guards nothing: whoever made two conversations of one name could only be refused for their own.
    """
    return xxhash.xxh3_128_digest(messages)
