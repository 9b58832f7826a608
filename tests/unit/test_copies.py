"""Rows that ask the same are told while they pass by, and what is remembered of them isn't kept in memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from batchrun.alike import request_name, row_name
from batchrun.estimating.copies import Copies
from batchrun.messages import JsonValue

TELLING = """
import resource, sys
from pathlib import Path
from batchrun.alike import row_name
from batchrun.estimating.copies import Copies

with Copies(Path()) as copies:
    ones = sum(copies.is_one(row_name([str(number % 45_000)], []), []) for number in range(int(sys.argv[1])))
print(ones, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def picture(folder: Path, name: str, data: bytes) -> list[dict[str, JsonValue]]:
    (folder / name).write_bytes(data)
    return [{"kind": "image", "path": name, "size": len(data)}]


def test_files_are_compared_by_what_is_in_them(tmp_path: Path) -> None:
    files = [picture(tmp_path, f"{number}.jpg", data) for number, data in enumerate([b"a", b"bb", b"b", b"a", b"b"])]
    gone = picture(tmp_path, "gone.jpg", b"a")
    (tmp_path / "gone.jpg").unlink()
    with Copies(tmp_path) as copies:
        found = [copies.is_one(request_name(["x"], media, row_name(["x"], media)), media) for media in [*files, gone]]
    assert found == [False, False, False, True, True, False]


def test_a_file_whose_size_no_other_one_has_is_not_read(tmp_path: Path) -> None:
    media = picture(tmp_path, "a.jpg", b"a")
    with Copies(tmp_path / "nowhere") as copies:
        assert not copies.is_one(request_name(["x"], media, "x"), media)
        assert not copies.is_one(None, media)


def test_many_rows_need_no_more_memory_than_a_few() -> None:
    kilobytes = []
    for number, ones in ((1_000, 0), (60_000, 15_000)):
        done = subprocess.run([sys.executable, "-c", TELLING, str(number)], capture_output=True, text=True, check=True)
        found, peak = map(int, done.stdout.split())
        assert found == ones
        kilobytes.append(peak)
    assert kilobytes[1] - kilobytes[0] < 4_000  # a set of the names would take 5,000
