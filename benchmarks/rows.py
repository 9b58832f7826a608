"""Loading rows from JSONL, and the cost report over as many usage rows, on SQLite.

python -m benchmarks.rows [ROWS]        1,000,000 unless said otherwise
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from batchrun.catalogue import load_catalogue
from batchrun.database import connect, reading, writing
from batchrun.jobfile.reader import read_job_file
from batchrun.loading.loader import load
from batchrun.reports.cost import cost_by
from batchrun.settings import read_settings
from benchmarks.contenders import CATALOGUE, JOB

ATTEMPTS = """
INSERT INTO attempts (id, item_id, job_id, profile_id, worker_id, fence, outcome, claimed_at, expected_tokens)
SELECT items.id, items.id, jobs.id, jobs.profile_id, 'w', 1, 'complete', 0, 100
FROM items JOIN jobs ON jobs.id = items.job_id
"""
USAGE = """
INSERT INTO usage (attempt_id, job_id, provider, region, model, at, simulated, input_tokens, output_tokens, price_id,
                   cost_low, cost_high, currency)
SELECT items.id, jobs.id, jobs.provider, jobs.region, jobs.model, 86400000000 * (items.id % 90), false, 20, 100,
       (SELECT min(id) FROM prices), 164000000, 164000000, 'USD'
FROM items JOIN jobs ON jobs.id = items.job_id
"""


@contextmanager
def timed(what: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    print(f"{what:40}{time.perf_counter() - began:8.2f} s")


def main(number: int) -> None:
    with tempfile.TemporaryDirectory(prefix="batchrun-benchmark-") as name:
        folder = Path(name)
        with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps({"id": f"item-{row}", "text": f"Item {row}"}) + "\n" for row in range(number))
        (folder / "catalogue.yaml").write_text(CATALOGUE.format(url="http://127.0.0.1:9/v1"), encoding="utf-8")
        (folder / "jobs.yaml").write_text(JOB.format(stream="true", streams=64), encoding="utf-8")
        engine = connect(read_settings({}, folder).database_url, create=True)
        catalogue = load_catalogue(folder / "catalogue.yaml")
        with timed(f"load {number:,} rows"):
            load(engine, read_job_file(folder / "jobs.yaml"), catalogue, base=folder)
        with writing(engine) as connection:
            connection.execute(sa.text("INSERT INTO workers (id, host, pid, started_at) VALUES ('w', 'h', 1, 0)"))
            connection.execute(sa.text(ATTEMPTS))
            connection.execute(sa.text(USAGE))
        with timed(f"cost by job over {number:,} usage rows"), reading(engine) as connection:
            lines = cost_by(connection, "job")
        assert len(lines) == 1, lines
        engine.dispose()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
