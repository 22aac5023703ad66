"""Usage in the columns of FOCUS 1.2, the FinOps Foundation's open cost and usage specification; one row per day and group."""

import csv
import io
from datetime import date, timedelta
from decimal import Decimal
from typing import cast

import msgspec

from services.console import api

Row = dict[str, object]
TOKENS = tuple(name for name in api.Tokens.__struct_fields__ if name.endswith("_tokens") and name != "thinking_tokens")
"""Disjoint: thinking is part of output here."""


def focus_csv(rows: list[Row]) -> bytes:
    """Amounts are exact decimals of US dollars."""
    out = io.StringIO()
    lines = [_line(row) for row in rows]
    writer = csv.DictWriter(out, fieldnames=list(lines[0]) if lines else list(_line(_EMPTY)), lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue().encode()


_EMPTY: Row = {"day": "1970-01-01"}


def _line(row: Row) -> dict[str, str]:
    day = date.fromisoformat(str(row["day"]))
    month = day.replace(day=1)
    tokens = sum(_int(row, name) for name in TOKENS)

    def text(name: str) -> str:
        return str(row.get(name) or "")

    return {
        "BillingAccountId": text("customer_uid"),
        "BillingAccountName": text("customer"),
        "SubAccountId": text("team_uid"),
        "SubAccountName": text("team"),
        "BillingCurrency": "USD",
        "BillingPeriodStart": f"{month}T00:00:00Z",
        "BillingPeriodEnd": f"{(month + timedelta(days=32)).replace(day=1)}T00:00:00Z",
        "ChargePeriodStart": f"{day}T00:00:00Z",
        "ChargePeriodEnd": f"{day + timedelta(days=1)}T00:00:00Z",
        "ChargeCategory": "Usage",
        "ChargeClass": "",
        "ChargeDescription": f"{text('model')} for key {text('key')}",
        "ChargeFrequency": "Usage-Based",
        "BilledCost": _usd(row, "charge_nano_usd"),
        "EffectiveCost": _usd(row, "cost_nano_usd"),
        "ContractedCost": _usd(row, "cost_nano_usd"),
        "ListCost": _usd(row, "list_nano_usd"),
        "ConsumedQuantity": str(tokens),
        "ConsumedUnit": "Tokens",
        "PricingQuantity": str(Decimal(tokens) / 1_000_000),
        "PricingUnit": "1000000 Tokens",
        "PricingCategory": "Standard",
        "ProviderName": text("provider"),
        "PublisherName": text("provider"),
        "InvoiceIssuerName": text("provider"),
        "ServiceName": text("model"),
        "ServiceCategory": "AI and Machine Learning",
        "ServiceSubcategory": "Generative AI",
        "SkuId": text("model"),
        "ResourceId": text("key_uid"),
        "ResourceName": text("key"),
        "ResourceType": "Virtual Key",
        "RegionId": "",
        "Tags": msgspec.json.encode({"owner": text("owner"), "billing_class": text("billing_class")}).decode(),
        "x_Requests": str(_int(row, "requests")),
        **{f"x_{_pascal(name)}": str(_int(row, name)) for name in api.Tokens.__struct_fields__},
    }


def _int(row: Row, name: str) -> int:
    return int(cast(int, row.get(name) or 0))


def _usd(row: Row, name: str) -> str:
    return format(Decimal(_int(row, name)).scaleb(-9), "f")


def _pascal(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))
