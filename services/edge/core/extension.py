"""How far a stream may go on its hold, when it asks for more, and for how much. Pure: clocks and answers are handed in."""

import msgspec

from services.edge.core.facts import Facts
from services.edge.core.lifecycle import output_left
from shared.contracts.budget import Denied, Granted

IN_HAND_SECONDS = 10.0  # of output when more is asked for: an owner that restarts is back by then
AMOUNT_SECONDS = 30.0
LEAST_TOKENS = 1_024
ASSUMED_RATE = 100.0  # tokens a second, until it is measured: few models write faster
HIGHEST_RATE = 1_000.0  # what looks faster came in a burst, and must not take the others' money for minutes
GRACE_SECONDS = 1.0  # a question that stands open at the end of the hold gets so much longer, at most
LEAST_GRACE_SECONDS = 0.25  # an answer that is on its way is here by then
MARGIN_TOKENS = 64
NEVER = 1 << 62
_DECAY = 0.8  # a second's part of the rate before it that still counts, where it was higher
_SHORTEST_SECONDS = 0.5  # what is measured over less is no rate
_FINAL = ("spent", "too_late")  # what is left never grows again within a period; a hold that is gone even less


class Question(msgspec.Struct, frozen=True):
    """One EXTEND."""

    n: int
    output_tokens: int


class Course:
    """One stream's way along its hold. Looked at again when its output comes to `line` tokens, and at no other time.

    paid: output tokens that the hold pays for. refused_by: the budget that gave nothing more, "" before that.
    """

    def __init__(self, granted: Granted, max_tokens: int, visible: bool = True) -> None:
        """max_tokens: 0 when the body gives none; never is more asked for. visible: all of the output shows in the stream."""
        self._granted = granted
        self._most = max_tokens
        self._visible = visible
        self._at_cap = granted.at_cap
        self._input_tokens = 0
        self.extended = 0
        self.refused_by = ""
        self.open: Question | None = None
        self._n = 0
        self._final = False
        self._not_before = 0
        self._rate = ASSUMED_RATE
        self._measured_at = self._measured = -1.0
        self._made_before, self._moved_at = -1, 0.0
        self.paid = self._stop = self.line = 0
        self._draw()

    @property
    def covered(self) -> bool:
        """The hold pays for all that the request allows."""
        return 0 < self._most <= self.paid

    def counted(self, input_tokens: int) -> None:
        """The provider has counted the input. What is above its bound is paid by the output's part of the hold.

        What is below gives the stream nothing: budget returns it to everybody at TRUEUP.
        """
        self._input_tokens = input_tokens
        self._draw()

    def flowed(self, made: int, now: float, hides: bool = False) -> None:
        """About once a second. made: output tokens so far. now: seconds on a steady clock. hides: see `Meter.hides`.

        A thought of which nothing is told for so long is going on: the end of the hold would come unseen.
        """
        if made != self._made_before:
            self._made_before, self._moved_at = made, now
        if hides and now - self._moved_at >= IN_HAND_SECONDS:
            self._visible = False
        seconds = now - self._measured_at
        if self._measured_at >= 0:
            if seconds < _SHORTEST_SECONDS:
                return
            self._rate = min(HIGHEST_RATE, max((made - self._measured) / seconds, self._rate * _DECAY))
        self._measured, self._measured_at = made, now
        self._draw()

    def ask(self, made: int) -> Question | None:
        """The question that is due now; it stands open until `answered`. One at a time."""
        if self.open or self._final or self.covered or made < self._ask_line:
            return None
        self._n += 1
        self.open = Question(self._n, self._amount(made))
        self._draw()
        return self.open

    def answered(self, answer: Granted | Denied, made: int) -> None:
        """To the open question. What gave nothing, or less than asked for, is asked again half way to the end."""
        asked, self.open = self.open, None
        more = answer.held_output_tokens if isinstance(answer, Granted) else 0
        self.extended += more
        if isinstance(answer, Denied):
            self._refused(answer)
        self._draw()
        if asked and more < asked.output_tokens:
            half = (self._stop - made) // 2
            self._not_before = made + half if half >= MARGIN_TOKENS else NEVER
            self._draw()

    def _refused(self, denied: Denied) -> None:
        self._final = denied.reason in _FINAL
        if denied.budget_id:  # else it is no budget's doing: the grant's own rule stands
            self.refused_by = denied.budget_id
            self._at_cap = denied.at_cap

    def at_end(self, made: int) -> bool:
        """The stream must not go on as it stands: its output is about to reach the hold, and it is not to finish."""
        return made >= self._stop and self._cuts

    def grace_seconds(self, made: int, seconds: float) -> float:
        """How long an open question may keep the stream waiting: hardly longer than what the provider goes on making is paid.

        seconds: since the first of its output.
        """
        speed = max(self._rate, made / max(seconds, _SHORTEST_SECONDS / 5))
        return min(GRACE_SECONDS, max(LEAST_GRACE_SECONDS, (self.paid - made) / speed))

    @property
    def _cuts(self) -> bool:
        return self._at_cap == "cut" and not self.covered

    @property
    def _ask_line(self) -> int:
        if not self._visible:
            return self._not_before  # nobody sees the end of the hold coming: what is lacking is asked for at once
        early = self._stop - max(LEAST_TOKENS, round(self._rate * IN_HAND_SECONDS))
        return max(early, self._not_before)

    def _amount(self, made: int) -> int:
        behind = max(0, made - self._stop) * 10 // 9  # a tenth of it becomes margin
        amount = max(LEAST_TOKENS, round(self._rate * AMOUNT_SECONDS)) + behind
        if not self._most:
            return amount
        short = self._most - self.paid
        return short if short - amount < LEAST_TOKENS or not self._visible else amount

    def _draw(self) -> None:
        """The margin is for what the estimate may miss, and for what the provider makes until it notices."""
        self.paid = output_left(self._granted, self._input_tokens, self.extended)
        margin = max(MARGIN_TOKENS, self.paid // 10, round(self._rate * GRACE_SECONDS))
        self._stop = max(1, self.paid - margin)
        asks = NEVER if self.open or self._final or self.covered else self._ask_line
        self.line = min(asks, self._stop if self._cuts else NEVER)


def course_of(granted: Granted | None, facts: Facts) -> Course | None:
    """None where nothing can be cut or extended. A hold that covers all is watched too: the input may eat into it."""
    if granted is None or not facts.stream or not (granted.charges or granted.at_cap == "cut"):
        return None
    return Course(granted, facts.max_tokens, facts.visible_output)
