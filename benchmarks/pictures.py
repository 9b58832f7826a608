"""Local pictures: what goes over the wire, what it takes in memory, and what shrinking costs.

    python -m benchmarks.pictures [NUMBER]                  240 JPEGs of about 1 MB, sent as they are
    python -m benchmarks.pictures [NUMBER] --shrink         as many JPEGs of 12 MB, shrunk first

The server has a process of its own and counts every byte that it reads, headers too.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

from PIL import Image

from batchrun.catalogue import load_catalogue
from batchrun.database import connect
from batchrun.jobfile.reader import read_job_file
from batchrun.loading.loader import load
from batchrun.running import run
from batchrun.settings import read_settings
from benchmarks.contenders import CATALOGUE

JOB = """
version: 1
jobs:
  - name: bench
    provider: bench
    model: bench
    inputs: {images: pictures}
    prompt: "Describe {{ stem }}."
    stream: false
    media: {oversize: shrink}
"""
PLAIN, LARGE = (2_000, 1_500), (6_000, 4_000)


def serve() -> None:
    """Prints its address, and the bytes that it has read when standard input closes."""
    counts: list[int] = []
    choice = {"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 20, "completion_tokens": 1, "total_tokens": 21}
    answer = json.dumps({"id": "0", "object": "chat.completion", "choices": [choice], "usage": usage}).encode()

    class Counting(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            counts.append(len(self.requestline) + 2 + len(self.headers.as_bytes()))
            left = int(self.headers["content-length"])
            while left and (part := self.rfile.read(min(left, 65_536))):
                left -= len(part)
                counts.append(len(part))
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Be quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Counting) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(f"http://127.0.0.1:{server.server_address[1]}/v1", flush=True)
        sys.stdin.read()
        server.shutdown()
    print(sum(counts), flush=True)


@contextmanager
def serving() -> Iterator[tuple[str, list[int]]]:
    """The address of the server; in the end the list holds the bytes that it has read."""
    read: list[int] = []
    command = [sys.executable, "-m", "benchmarks.pictures", "serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        yield server.stdout.readline().strip(), read
        server.stdin.close()
        read.append(int(server.stdout.readline()))


def make(folder: Path, number: int, size: tuple[int, int]) -> int:
    """That many pictures, each another one in its last bytes. Returns their bytes together."""
    folder.mkdir()
    out = BytesIO()
    Image.effect_noise(size, 40).convert("RGB").save(out, "JPEG", quality=62)
    for picture in range(number):
        (folder / f"{picture:05}.jpg").write_bytes(out.getvalue() + str(picture).encode())
    return sum(path.stat().st_size for path in folder.iterdir())


def peak_mb(who: int) -> float:
    return resource.getrusage(who).ru_maxrss / 1024


def main(number: int, *, shrink: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="batchrun-benchmark-") as name, serving() as (url, read):
        folder = Path(name)
        size = make(folder / "pictures", number, LARGE if shrink else PLAIN)
        (folder / "catalogue.yaml").write_text(CATALOGUE.format(url=url), encoding="utf-8")
        (folder / "jobs.yaml").write_text(JOB, encoding="utf-8")
        catalogue, settings = load_catalogue(folder / "catalogue.yaml"), read_settings({}, folder)
        engine = connect(settings.database_url, create=True)
        loaded = load(engine, read_job_file(folder / "jobs.yaml"), catalogue, base=folder)
        idle, began = peak_mb(resource.RUSAGE_SELF), time.perf_counter()
        end = run(engine, [job.job_id for job in loaded], catalogue, settings)
        seconds = time.perf_counter() - began
        assert end.jobs[0].states == {"done": number}, end.jobs
        engine.dispose()
        stored = sum(path.stat().st_size for path in folder.rglob("*.db*")) / number
    print(f"{number} JPEGs, {size:,} bytes, on {os.cpu_count()} cores")
    print(f"bytes read by the server   {read[0]:,} ({read[0] / size:.4f} x the files)")
    print(f"time                       {seconds:.1f} s, {number / seconds:.1f} pictures/s")
    print(f"memory                     {peak_mb(resource.RUSAGE_SELF) - idle:.0f} MB above the {idle:.0f} MB before")
    if shrink:
        print(f"memory of a decoder        {peak_mb(resource.RUSAGE_CHILDREN):.0f} MB at most")
    print(f"on disk                    {stored:,.0f} bytes for each item")


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
    else:
        given = [argument for argument in sys.argv[1:] if argument != "--shrink"]
        main(int(given[0]) if given else 240, shrink="--shrink" in sys.argv)
