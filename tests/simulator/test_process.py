"""The command: what it prints, when it stops, and which keys it takes."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from batchrun.simulator import Options, SimulatorFailed, start
from batchrun.simulator.options import parse_options

from .raw import Client

COMMAND = [sys.executable, "-m", "batchrun.simulator"]


def launch(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_prints_one_line_and_stops_on_a_signal(number: signal.Signals) -> None:
    with launch() as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        process.send_signal(number)
        rest, errors = process.communicate(timeout=10)
    assert (url.startswith("http://127.0.0.1:"), rest, errors, process.returncode) == (True, "", "", 0)


def test_the_line_names_the_base_url_of_each_protocol_and_place() -> None:
    with launch() as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        process.terminate()
        process.communicate(timeout=10)
    bases, url = told["base_urls"], told["url"]
    assert {api: sorted(places) for api, places in bases.items()} == {
        "compat": ["beijing", "beijing-batch", "singapore", "virginia"],
        "native": ["beijing", "singapore", "virginia"],
        "acedata": ["acedata"],
        "moonshot": ["moonshot"],
    }
    assert bases["compat"]["beijing"] == f"{url}/beijing/compatible-mode/v1"
    assert bases["native"]["beijing"] == f"{url}/beijing/api/v1"
    assert bases["acedata"]["acedata"] == f"{url}/acedata/kimi"
    assert bases["moonshot"]["moonshot"] == f"{url}/moonshot/v1"


def test_the_base_urls_of_python_are_those_of_the_line(client: Client) -> None:
    running = client.simulator
    assert running.native_url("virginia", "429-every=2") == f"{running.url}/virginia/fault/429-every=2/api/v1"
    assert running.acedata_url("503") == f"{running.url}/acedata/fault/503/kimi"
    assert running.moonshot_url("503") == f"{running.url}/moonshot/fault/503/v1"


def test_it_stops_when_its_standard_input_closes() -> None:
    with launch("--exit-on-stdin-eof") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.communicate(timeout=10)
    assert process.returncode == 0


def test_an_open_stream_gets_its_row_when_the_simulator_stops(tmp_path: Path) -> None:
    path = tmp_path / "book.jsonl"
    with start(Options(ttft=0, tokens_per_second=0, book=path), environment={}) as running:
        client = Client(running)
        connection = client.connect()
        connection.sendall(client.request(client.streamed(), fault="chunks=9+stall-after=4"))
        connection.recv(10)
    connection.close()
    assert '"output": 12' in path.read_text()


def test_a_taken_port_is_told(client: Client, capfd: pytest.CaptureFixture[str]) -> None:
    port = int(client.simulator.url.rpartition(":")[2])
    with pytest.raises(SimulatorFailed), start(Options(port=port), environment={}):
        pass
    assert str(port) in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "70000"], "70000"),
        (["--ttft", "-1"], "-1"),
        (["--chunk-tokens", "0"], "at least 1"),
        (["--bill", "never"], "never"),
        (["--fault", "typo"], "typo"),
    ],
)
def test_a_wrong_option_is_told(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_options(arguments)
    assert message in capsys.readouterr().err


def test_options_survive_the_command_line() -> None:
    options = Options(port=8_080, book=Path("b.jsonl"), ttft=0.0, limits=False, rpm=7, fault="429-every=2")
    assert parse_options(options.arguments()) == options


def test_the_list_of_faults_is_printed() -> None:
    done = subprocess.run([*COMMAND, "--list-faults"], capture_output=True, text=True, check=True)
    assert "reset-after[=3]" in done.stdout


def test_the_key_of_the_environment_is_the_only_one() -> None:
    options = Options(ttft=0, tokens_per_second=0)
    with start(options, environment={"BATCHRUN_SIMULATOR_KEY": "sk-mine"}) as running:
        client = Client(running)
        statuses = [client.ask(client.body(), key=key).status for key in ("sk-mine", "sk-sim-singapore")]
    assert statuses == [200, 401]


def test_a_fault_for_all_requests_without_their_own() -> None:
    options = Options(ttft=0, tokens_per_second=0, fault="503")
    with start(options, environment={}) as running:
        client = Client(running)
        statuses = [client.ask(client.body(), fault=fault).status for fault in ("", "ttft=0")]
    assert statuses == [503, 200]


def test_another_seed_gives_other_answers(client: Client) -> None:
    bodies = [client.streamed() for _ in range(8)]
    with start(Options(ttft=0, tokens_per_second=0, seed=1), environment={}) as running:
        others = [Client(running).ask(body).deltas("content") for body in bodies]
    assert others != [client.ask(body).deltas("content") for body in bodies]
