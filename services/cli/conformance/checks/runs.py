"""What all checks with the real client share: how a run has to end, and where its posts arrived."""

from services.cli.conformance.claude import Turn
from services.cli.conformance.results import expect
from services.cli.conformance.scene import Scene, inference

ONCE_SECONDS = 30.0
"""What is refused for good is known at once; a client that repeats takes three minutes."""


def ended_well(turn: Turn, what: str = "the run") -> None:
    expect(turn.exit_code == 0, f"{what} ends with exit code {turn.exit_code}: {turn.text or turn.stderr[:200]}")


def was_refused(turn: Turn, status: int, posts: int = 1) -> None:
    found = (turn.exit_code, turn.result.get("api_error_status"))
    expect(found == (1, status), f"exit code and status are {found} instead of (1, {status}): {turn.text}")
    expect(len(turn.posts) <= posts, f"it posts {len(turn.posts)} times instead of {posts}")
    expect(turn.seconds < ONCE_SECONDS, f"it takes {turn.seconds:.0f} s")


def arrived(scene: Scene, session: str, path: str = "/v1/messages") -> int:
    """How many requests of a session reached the provider on paths that hold this."""
    found = [each for each in inference(scene.provider.requests) if path.encode() in each.line]
    return sum((each.header("x-claude-code-session-id") or b"").decode() == session for each in found)
