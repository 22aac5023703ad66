"""How many tokens of input a request can be at most: the same answer at the owner and at an edge that decides by itself."""

from shared.contracts.budget import Reserve
from shared.rates.book import Limits

BASE_TOKENS = 1_000  # what the provider adds around a prompt
IMAGE_TOKENS = 4_784  # published maximum of a high-resolution image
PAGE_TOKENS = 3_000 + IMAGE_TOKENS  # a PDF page: published maximum of its text, and itself as an image
SEARCH_TOKENS = 20_000  # what one web search adds to the prompt; no maximum is published: ten results of 2,000


def input_bound(ask: Reserve, limits: Limits, tokens_per_100_bytes: int) -> tuple[int, bool]:
    """Most input tokens of all classes together, and whether they can still grow after `message_start`.

    The provider's own count, where the edge asked for it, stands in for text, images and pages. A meter that we do not
    know leaves them open: the model's whole context for each loop that the body allows. Each web search is such a loop,
    of known growth: it reads everything before it again, and the results of the searches before it.
    """
    counted = loops = searches = 0
    estimate = BASE_TOKENS
    seen_text = False
    for bound in ask.bounds:
        match bound.meter:
            case "text_bytes":
                seen_text = True
                estimate += _text_tokens(bound.quantity, tokens_per_100_bytes)
            case "image":
                estimate += bound.quantity * IMAGE_TOKENS
            case "page":
                estimate += bound.quantity * PAGE_TOKENS
            case "input_tokens":
                counted += bound.quantity
            case "web_search":
                searches += bound.quantity
            case _:
                loops += max(1, bound.quantity)
    if not seen_text:
        estimate += _text_tokens(ask.input_bytes, tokens_per_100_bytes)
    tokens = counted or estimate
    searched = (searches + 1) * tokens + SEARCH_TOKENS * searches * (searches + 1) // 2
    searched = max(tokens, min(searched, (searches + 1) * limits.context_tokens))
    return max(searched, loops * limits.context_tokens), loops + searches > 0


def _text_tokens(size: int, tokens_per_100_bytes: int) -> int:
    return -(-size * tokens_per_100_bytes // 100)
