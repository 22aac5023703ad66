"""What a reader may ask of the embedded engine.

The engine runs every reader's query with readonly=1, which refuses writes, settings, and nearly all sources outside the
tables. What that leaves open (function `file`, INTO OUTFILE, DESCRIBE of a table function, KILL QUERY) is closed here.

The text judged is the canonical one that the engine's own parser wrote back (formatQuerySingleLine), and that very text is
run: comments, heredocs, escapes in names and syntactic sugar are gone from it, so reading its words is enough.
"""

import re
from collections.abc import Iterator

import msgspec

ACCESS_DENIED = 497
READONLY = 164

FIRST_WORDS = frozenset({"SELECT", "WITH", "SHOW", "DESCRIBE", "EXISTS", "EXPLAIN"})

TABLE_FUNCTIONS = frozenset(
    {"numbers", "zeros", "generate_series", "generateseries", "primes", "values", "view", "null"}
)
"""The table functions that read nothing but their arguments."""

DENIED = frozenset(
    {
        "file",  # the one scalar function that reads the disk
        "sleep",  # they hold one of few places without working
        "sleepeachrow",
        "hascolumnintable",  # can ask another server
        "reversednsquery",
        "catboostevaluate",
        "showcertificate",
        "generateserialid",  # writes to Keeper
        "logtrace",  # writes to the log
        *("addresstoline", "addresstolinewithinlines", "addresstosymbol"),
        *("aigenerate", "aiclassify", "aiextract", "aitranslate", "aiembed", "aifilter", "airedact", "aisimilarity"),
    }
)
"""Never, wherever the word stands: `* APPLY file` calls a function without a bracket."""

_KEYWORDS = """
    ALL AND ANTI ANY APPLY ARRAY AS ASC ASOF BETWEEN BY CASE COLUMNS CROSS CUBE DESC DESCRIBE DISTINCT ELSE
    END EXCEPT EXISTS EXPLAIN FETCH FILL FINAL FROM FULL GLOBAL GROUP GROUPING HAVING ILIKE IN INNER
    INTERPOLATE INTERSECT INTERVAL IS JOIN LAMBDA LEFT LIKE LIMIT NOT NULL OFFSET ON OR ORDER OUTER OVER
    PARTITION PASTE PREWHERE QUALIFY REGEXP REPLACE RIGHT ROLLUP SAMPLE SELECT SEMI SETS STEP TABLE THEN TO
    TOTALS UNION USING VALUES WHEN WHERE WINDOW WITH
"""
KEYWORDS = frozenset(_KEYWORDS.split())
"""Words of the language that a bracket may follow. None of them names a source."""

_COMBINATORS = (
    *("if", "array", "map", "merge", "state", "simplestate", "foreach", "distinct", "ordefault", "ornull", "resample"),
    *("argmin", "argmax", "null", "tuple"),
)

_TOKEN = re.compile(
    r"""(?P<text>'(?:[^'\\]|\\.|'')*')
      | `(?P<quoted>(?:[^`\\]|\\.|``)*)`
      | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<number>[0-9][A-Za-z0-9_.]*)
      | (?P<space>\s+)
      | (?P<sign>.)""",
    re.VERBOSE | re.DOTALL,
)


class Refusal(msgspec.Struct, frozen=True):
    """code: of ClickHouse's exceptions."""

    code: int
    message: str


class _Token(msgspec.Struct, frozen=True):
    """kind: text, quoted, word, number, sign."""

    kind: str
    value: str


def _tokens(canonical: str) -> Iterator[_Token]:
    for match in _TOKEN.finditer(canonical):
        if match.lastgroup and match.lastgroup != "space":
            yield _Token(match.lastgroup, match[match.lastgroup])


class Guard:
    """callable_names: functions and data types of the engine, which is asked for them once."""

    def __init__(self, callable_names: frozenset[str]) -> None:
        self._callable = (frozenset(name.lower() for name in callable_names) | TABLE_FUNCTIONS) - DENIED

    def refusal(self, canonical: str) -> Refusal | None:
        """Why this query is not run, None when it may be. canonical: as the engine formats it, on one line."""
        tokens = list(_tokens(canonical))
        first = next((token for token in tokens if token.value != "("), None)
        if first is None or first.kind != "word" or first.value not in FIRST_WORDS:
            return Refusal(READONLY, "This port only reads: SELECT, WITH, SHOW, DESCRIBE, EXISTS and EXPLAIN")
        for index, token in enumerate(tokens):
            if token.kind not in ("word", "quoted"):
                continue
            following = tokens[index + 1].value if index + 1 < len(tokens) else ""
            if refused := self._name(token, following, tokens[index + 1 : index + 2]):
                return refused
        return None

    def _name(self, token: _Token, following: str, rest: list[_Token]) -> Refusal | None:
        name = token.value.lower()
        if name in DENIED:
            return Refusal(ACCESS_DENIED, f"`{token.value}` is not available on this port")
        if name == "into" and following.upper() == "OUTFILE":
            return Refusal(ACCESS_DENIED, "INTO OUTFILE is not available on this port")
        if following == "(" and rest[0].kind == "sign" and not self._may_call(token):
            return Refusal(ACCESS_DENIED, f"Function or table function `{token.value}` is not available on this port")
        return None

    def _may_call(self, token: _Token) -> bool:
        if token.kind == "word" and token.value in KEYWORDS:
            return True
        name = token.value.lower()
        while name not in self._callable:
            combinator = next((end for end in _COMBINATORS if name.endswith(end) and name != end), None)
            if combinator is None:
                return False
            name = name.removesuffix(combinator)
        return True
