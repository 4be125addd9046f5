"""How fast the service receives: beside a guide-style receiver, and beside what PostgreSQL's own tool reaches with a transaction an event.

    python benchmarks/receiving [--parts rounds idle …] [--rounds 3] [--connections 32] [--markdown] [--quick]
    python benchmarks/receiving --parts rounds --rounds 1 --without baseline --events 4000    # a look, while something is being changed

It starts a PostgreSQL of its own, with fsync, and gives each measurement a fresh database that holds what a sync of 2,000 people left.
Everybody is sent, or writes, the same: events of one organization about people in three of its fifty groups each, with one role; first of
people who are all new, then with another name of each. That all write as many rows is checked. Only answers 2xx count.

The ratios are each of two measurements of one round; the median of the rounds is held against what is asked for. Processor time is the
service's and that of all of PostgreSQL's processes, without the sender's; of pgbench, which is its own sender, that of PostgreSQL alone.

Parts:
  rounds       the service, the baseline (baseline.py) and pgbench (transaction_*.sql) in turn, each round in another order; and pgbench
               with as many events a transaction as the service's median batch, from one client (batch_*.sql)
  connections  1, 4, 32 and 128 of them
  workers      one process and two
  sqlite       the service and the baseline on SQLite
  idle         one delivery at a time
  reading      looking users up during a burst
  resident     memory

A line a measurement goes to standard error as it comes. It leaves with 1 if something that is asked for is missed.
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))  # for the throw-away PostgreSQL

import parts
import stores
from report import circumstances


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python benchmarks/receiving", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=parts.PARTS, default=list(parts.PARTS), metavar="PART", help="these alone (all)")
    left_out = ("baseline", "pgbench", "service", "batched")
    parser.add_argument("--without", nargs="+", choices=left_out, default=[], help="leave these out of the rounds")
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--connections", type=int, default=32, help="(%(default)s)")
    parser.add_argument("--events", type=int, default=10_000, help="of each kind (%(default)s); the baseline gets an eighth")
    parser.add_argument("--quick", action="store_true", help="one round with a fifth of the events: shows that it runs, not how fast")
    parser.add_argument("--markdown", action="store_true", help="tables for a README")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.events = 1, options.events // 5
    missed = False
    busy = os.getloadavg()[0]
    with stores.Postgres.started() as server:
        print(circumstances(server.version, busy))
        for part in options.parts:
            for table in parts.PARTS[part](server, options):
                print(f"\n{table.markdown() if options.markdown else table.text()}", flush=True)
                missed |= any(line.met is False for line in table.lines)
    raise SystemExit(missed)


if __name__ == "__main__":
    main()
