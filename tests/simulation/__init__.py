"""The ledger's protocol, played with a hostile broker on a virtual clock from one seed (docs/ledger.md: how it is proved).

What is real: the cores of budget, edge and pricing, the messages with their bytes, and the arithmetic of prices. What is
played: the shells, in small (edges with spool, publisher and questions to the owner; owners; pricing; the keeper of rows),
a provider that writes its own bill, and the broker between them, which loses, repeats, delays, reorders and hangs up.
Processes die at any step, machines lose power with what was not synced, second owners appear, caps move, disks stall.
Then all is calm, and `oracle` compares the books: provider's bill, usage records, ledger, rows.

| file | what is played there |
|---|---|
| `play.py` | one simulation from start to verdict: traffic, mischief, calm; `simulate(seed, mutant)` |
| `world.py` | the clock, the dice, processes and how they die |
| `broker.py` | logs, the de-duplication window, requests and replies, and what may happen to them |
| `disk.py`, `edge.py` | the spool and its edge |
| `owner.py`, `followers.py` | the owner; pricing and rows |
| `lending.py` | leases, at the edge and at the owner |
| `provider.py`, `company.py` | the bill; who is governed |
| `oracle.py` | the promises P1, P2, P3, P5, and that replay(log) is the live state |
| `clock.py` | an asyncio loop whose time jumps |

A failing test names its seed. To see what happened, step by step, and again after each change:

    python -m tests.simulation --seed 17
    python -m tests.simulation --seed 17 --mutant no_fence

To look for new ones: `python -m tests.simulation --seeds 1000 5000`. The same seed plays the same way on every machine for
as long as neither the cores nor this folder change; after a change to either the seed is another story, so keep what a
failing seed taught as a unit test of the core.

A mutant (`world.MUTANTS`) is one rule of the protocol broken on purpose. Each must be caught, else the harness is blind.
"""
