"""Serving the line: who gets in at once, who waits, and who is next when money comes free.

What waits at a budget is looked at in turn, and the first for which that budget still lacks room ends the look there. So
nobody passes an earlier turn, and no budget waits for the line of another.
"""

from collections.abc import Iterable

import msgspec

from services.budget.core import admission, extension
from services.budget.core.admission import Admitted, Applicant, Lacking
from services.budget.core.group import Group, Late
from services.budget.core.line import Waiter, Wish
from shared.contracts.budget import Denied, Extend, Granted, Queued, Reserve

_SECOND = 1_000_000


def reserve(group: Group, ask: Reserve) -> Granted | Denied | Queued:
    """Asked again with the same rid it answers the same, or lets it keep its turn."""
    if answer := admission.known(group.state, group.rules, ask, group.now):
        return answer
    waiter = group.line.waiters.get(ask.rid)
    applicant = waiter.applicant if waiter else admission.weigh(group.state, group.rules, ask, group.now)
    if isinstance(applicant, Denied):
        return applicant
    found = _now(group, applicant)
    if isinstance(found, Lacking):
        waited = max(group.now - applicant.came, ask.waited_ms * 1_000)
        if ask.may_wait and waited < found.queue_seconds * _SECOND:
            serve(group, group.line.stand(waiter or Waiter(applicant), found.budget_ids))
            serve(group, group.line.leads(ask.rid))  # it may have come earlier than those that it stood behind
            return Queued(ahead=group.line.ahead(ask.rid), owner_epoch=group.state.owner_epoch)
        found = _for_good(group, applicant)
    look = set(group.line.leave(ask.rid, granted=isinstance(found, Admitted)))
    if ask.replaces_rid and isinstance(found, Admitted):
        look.update(charge.budget_id for charge in found.held.charges)  # it may hold less than what it replaces
    answer = _booked(group, applicant, found)
    serve(group, sorted(look))
    return answer


def extend(group: Group, ask: Extend) -> Granted | Denied | Queued:
    """More output for a stream. What is not free now is waited for: the stream goes on meanwhile, up to its hold."""
    found = extension.judge(group.state, group.rules, ask, group.now, group.line.wishes_before)
    if isinstance(found, extension.Lacking):
        look = group.line.wish(Wish(ask, group.state.holds[ask.rid].held.edge), found.budget_ids)
        serve(group, look)
        return Queued(ahead=0, owner_epoch=group.state.owner_epoch)
    look = group.line.unwish(ask.rid)
    answer = _extended(group, found)
    serve(group, look)
    return answer


def serve(group: Group, budget_ids: Iterable[str]) -> None:
    """Money came free there, or somebody went: let in whose turn it is for as long as there is room."""
    look = dict.fromkeys(budget_ids) if group.line else {}
    while look:
        if group.full:
            group.line.unserved |= look
            return
        budget_id = next(iter(look))
        del look[budget_id]
        if not _grant_wishes(group, budget_id, look):
            continue
        while (waiter := group.line.first(budget_id)) and not group.full:
            left = _consider(group, waiter)
            if budget_id not in left:
                break  # it stays: nobody may pass it here
            look.update(dict.fromkeys(left - {budget_id}))
        if group.full:
            look[budget_id] = None


def go_on(group: Group) -> None:
    """With what the record before had no room for."""
    look, group.line.unserved = group.line.unserved, {}
    serve(group, look)


def look_again(group: Group) -> None:
    """Once a second: those who have waited long enough, and budgets whose period has rolled."""
    group.line.pace.forget(group.now)
    due = [waiter for waiter in group.line.waiters.values() if _is_due(group, waiter)]
    for waiter in sorted(due, key=lambda waiter: waiter.applicant.came):
        if waiter.rid in group.line.waiters and not group.full:
            found = _for_good(group, waiter.applicant)
            look = group.line.leave(waiter.rid, granted=isinstance(found, Admitted))
            _tell(group, waiter, _booked(group, waiter.applicant, found))
            serve(group, look)
    serve(group, group.line.budgets())


def weigh_again(group: Group) -> None:
    """The organisation or its prices have changed: other budgets may be on the way of those who wait."""
    for waiter in list(group.line.waiters.values()):
        look = group.line.leave(waiter.rid)
        applicant = admission.weigh(group.state, group.rules, waiter.applicant.ask, group.now)
        if isinstance(applicant, Denied):
            _tell(group, waiter, applicant)
        else:
            again = Waiter(msgspec.structs.replace(applicant, came=waiter.applicant.came))
            group.line.stand(again, look)
    serve(group, group.line.budgets())


def _consider(group: Group, waiter: Waiter) -> frozenset[str]:
    """Whose turn it is at a budget. Returns the budgets that it left."""
    found = _now(group, waiter.applicant)
    if isinstance(found, Lacking):
        return group.line.stand(waiter, found.budget_ids)
    left = group.line.leave(waiter.rid, granted=isinstance(found, Admitted))
    _tell(group, waiter, _booked(group, waiter.applicant, found))
    return left


def _grant_wishes(group: Group, budget_id: str, look: dict[str, None]) -> bool:
    """Streams that need more, oldest first. False while one of them lacks room here: then nobody is let in."""
    for wish in group.line.wishes_at(budget_id):
        found = extension.judge(group.state, group.rules, wish.ask, group.now, group.line.wishes_before)
        if isinstance(found, extension.Lacking):
            look.update(dict.fromkeys(group.line.wish(wish, found.budget_ids)))
            if budget_id in found.budget_ids:
                return False
            continue
        look.update(dict.fromkeys(group.line.unwish(wish.ask.rid) - {budget_id}))
        group.late.append(Late(wish.edge, wish.ask.rid, wish.ask.n, _extended(group, found)))
    return True


def _now(group: Group, applicant: Applicant) -> Admitted | Denied | Lacking:
    return admission.judge(group.state, group.rules, applicant, group.now, group.line)


def _for_good(group: Group, applicant: Applicant) -> Admitted | Denied:
    """It can wait no longer: it takes what there is, whoever is before it."""
    found = admission.judge(group.state, group.rules, applicant, group.now, None)
    assert not isinstance(found, Lacking), "who cannot wait is told"
    return found


def _extended(group: Group, found: extension.Decided) -> Granted | Denied:
    if found.event:
        group.apply(found.event)
    return found.answer


def _booked(group: Group, applicant: Applicant, found: Admitted | Denied) -> Granted | Denied:
    if isinstance(found, Denied):
        return found
    group.apply(found.held)
    if beyond := applicant.size.beyond_nano_usd:
        group.line.pace.begin((limit.id for limit in applicant.path.hard), beyond, group.now)
    return found.granted


def _tell(group: Group, waiter: Waiter, answer: Granted | Denied) -> None:
    group.late.append(Late(waiter.applicant.ask.edge, waiter.rid, 0, answer))


def _is_due(group: Group, waiter: Waiter) -> bool:
    limits = (group.rules.catalogue.limit(budget_id) for budget_id in waiter.stands_at)
    patience = min((limit.rule.queue_seconds for limit in limits if limit), default=0)
    return group.now - waiter.applicant.came >= patience * _SECOND
