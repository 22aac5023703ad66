"""The arithmetic of prices: one set of rates for the hold (budget) and the bill (pricing). Pure."""

from shared.rates.book import Book, Limits
from shared.rates.bound import Asked, Hold, HoldRates, hold_rates
from shared.rates.names import canonical
from shared.rates.overrides import Basis, Overrides, Terms
from shared.rates.price import Priced, price

__all__ = [
    "Asked",
    "Basis",
    "Book",
    "Hold",
    "HoldRates",
    "Limits",
    "Overrides",
    "Priced",
    "Terms",
    "canonical",
    "hold_rates",
    "price",
]
