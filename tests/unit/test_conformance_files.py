"""Looking into the folders of a gateway that is at work."""

from pathlib import Path

from services.cli.conformance.files import files


def test_what_goes_while_it_is_looked_at_is_passed_over(tmp_path: Path) -> None:
    for name in ("a.log", "b.log", "other.txt"):
        (tmp_path / name).write_text(name)
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "c.log").write_text("c.log")
    looking = files([tmp_path], ".log")
    first, data = next(looking)
    assert data.decode() == first.name
    for path in tmp_path.rglob("*.log"):
        path.unlink()
    (tmp_path / "part").rmdir()
    assert list(looking) == []


def test_a_root_that_is_a_file_counts_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "stderr").write_text("x")
    assert list(files([tmp_path / "stderr"], ".log")) == [(tmp_path / "stderr", b"x")]
