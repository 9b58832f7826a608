"""The catalogue in the form that is read at each start. `python -m tests.unit.kept_catalogue` writes it anew."""

from __future__ import annotations

import hashlib
import json

from batchrun.catalogue import BUNDLED, KEPT, read_bundled


def kept_catalogue() -> str:
    digest = hashlib.sha256(BUNDLED.read_bytes()).hexdigest()
    return json.dumps({"sha256": digest, "catalogue": read_bundled()[1]}, indent=0, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    KEPT.write_text(kept_catalogue(), encoding="utf-8")
