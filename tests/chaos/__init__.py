"""Everything real, mistreated: `make chaos` (docs/ledger.md: how it is proved).

The services run as `sluicegate up` runs them, with the supervisor that starts again what dies; the simulator writes the
provider's bill into a file of its own. When all has come to rest, `judge` compares the books and believes none of them.

| file | what is in it |
|---|---|
| `test_kills.py` | `kill -9` of a random process every 1–2 s under load |
| `test_faults.py` | the broker away; each neighbour frozen; lines that delay, stall, lose bytes, cut |
| `test_schedules.py` | the few moments that the fence, message ids and the resume position are for, constructed |
| `test_leases.py` | the broker restarted, and the kill loop, with edges that admit on leases |
| `test_power.py`, `power.py` | the machine loses power: a filesystem on a loop device that is stopped dead |
| `stage.py`, `company.py`, `owner.py` | an installation with hard budgets, its traffic, what can be done to it |
| `proxy.py` | the TCP proxy that misbehaves on command |
| `books.py`, `judge.py` | bill, logs and rows of a run; the promises P1 to P5, and the figures to report |
| `mutants/` | rules of the protocol broken on purpose; each must be caught |
| `run.py` | its length, its seed, what it says |
| `record.py` | one more ledger for tests/corpus |

CHAOS_SECONDS sets the length (60), CHAOS_SEED who is killed and when. A seed repeats the plan, not the run: real processes
go their own way. What a run has taught belongs into `test_schedules.py`, or into the deterministic simulation.
"""
