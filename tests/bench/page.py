"""`python -m tests.bench.page RESULT`: the tables of docs/performance.md and its picture, made anew from a result.

In the page, what stands between `<!-- NAME -->` and `<!-- / -->` is the table NAME of `table`, and `<!-- result: FILE -->`
names the result they are of. A test makes them again and compares: no figure there is typed by hand.
"""

import argparse
import re
from pathlib import Path

from tests.bench import chart, table
from tests.bench.results import FOLDER, Result, read

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"
RESULT = re.compile(r"<!-- result: (\S+) -->")


def named(page: str) -> Path:
    """The result that the page shows."""
    found = RESULT.search(page)
    assert found, "the page names no result"
    return FOLDER / found[1]


def filled(page: str, name: str, result: Result) -> str:
    """The page with every table made of this result, which is the file `name`."""
    page = RESULT.sub(f"<!-- result: {name} -->", page)
    for title, make in table.TABLES.items():
        block = re.compile(rf"(<!-- {title} -->\n).*?(<!-- / -->)", re.DOTALL)
        text = make(result)
        page = block.sub(lambda found, text=text: f"{found[1]}{text}\n{found[2]}", page)  # type: ignore[misc]  # a bound default
    return page


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.page", description=__doc__)
    parser.add_argument("result", type=Path, help=f"a file in {FOLDER.name}/")
    path = parser.parse_args().result
    result = read(path)
    PAGE.write_text(filled(PAGE.read_text(), path.name, result))
    chart.PICTURE.write_text(chart.draw(result))


if __name__ == "__main__":
    main()
