"""Exports: what is in the files, and what a file system can do against them."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import Engine

from batchrun.database import connect, writing
from batchrun.errors import UsageError
from batchrun.output.export import ExportSummary, Format, disarmed, export
from batchrun.output.sidecar import Sidecars
from batchrun.states import State
from tests.filling import NOON, Filling


@pytest.fixture
def engine(sqlite_url: str) -> Iterator[Engine]:
    engine = connect(sqlite_url)
    yield engine
    engine.dispose()


@pytest.fixture
def fill(engine: Engine) -> Iterator[Filling]:
    with engine.connect() as connection:
        yield Filling(connection)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder


def done(fill: Filling, job: int, custom_id: str, text: str, *, state: State = State.DONE, **values: object) -> int:
    item = fill.item(job, custom_id, state=state)
    fill.usage(fill.attempt(item, text=text, **values))  # type: ignore[arg-type]  # passed on as given
    return item


def exported(fill: Filling, output_format: Format, **options: object) -> str:
    fill.connection.commit()
    out = io.BytesIO()
    export(fill.connection.engine, "captions", output_format, out, **options)  # type: ignore[arg-type]  # passed on
    return out.getvalue().decode()


def record(fill: Filling) -> dict[str, object]:
    (line,) = exported(fill, "jsonl").splitlines()
    found: dict[str, object] = json.loads(line)
    return found


def cells(fill: Filling, *, raw: bool = False) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(exported(fill, "csv", raw=raw), newline="")))


# JSONL


def test_text_and_reasoning_stand_apart(fill: Filling) -> None:
    done(fill, fill.job("captions"), "a", "A cat.", reasoning="It has whiskers.")
    found = record(fill)
    assert (found["text"], found["reasoning"], found["finish_reason"]) == ("A cat.", "It has whiskers.", "stop")


def test_money_is_text_without_exponent(fill: Filling) -> None:
    item = fill.item(fill.job("captions"), state=State.DONE)
    fill.usage(fill.attempt(item, text="x"), low="0.000000000001", high="0.1")
    assert record(fill)["cost"] == {
        "low": "0.000000000001", "high": "0.10", "currency": "USD", "unknown_attempts": 0,
        "settled_attempts": 0,
    }  # fmt: skip


def test_an_unknown_cost_is_null_and_counted(fill: Filling) -> None:
    item = fill.item(fill.job("captions"), state=State.DONE)
    fill.usage(fill.attempt(item, text="x"), low=None)
    assert record(fill)["cost"] == {
        "low": None, "high": None, "currency": None, "unknown_attempts": 1, "settled_attempts": 0,
    }  # fmt: skip


def test_the_usage_of_the_vendor_is_exported_untouched(fill: Filling) -> None:
    raw = {"prompt_tokens": 7, "odd": [1, {"x": None}]}
    item = fill.item(fill.job("captions"), state=State.DONE)
    fill.usage(fill.attempt(item, text="x"), input_tokens=7, raw=raw)
    attempts = record(fill)["attempts"]
    assert isinstance(attempts, list)
    assert (attempts[0]["usage"]["raw"], attempts[0]["usage"]["input_tokens"]) == (raw, 7)


def test_times_are_rfc_3339_in_utc(fill: Filling) -> None:
    done(fill, fill.job("captions"), "a", "x", at=NOON + timedelta(microseconds=5))
    assert record(fill)["finished_at"] == "2026-11-01T12:00:00.000005Z"


def test_hostile_text_comes_back_as_it_was(fill: Filling) -> None:
    text = '\x1b]52;c;aGk=\x07 "quoted"\r\n\u2028line \u202egnp.exe \x9b31m \U000e0041 猫 👩‍🚀'
    done(fill, fill.job("captions"), "a", text)
    assert record(fill)["text"] == text


def test_no_line_has_a_character_that_a_terminal_obeys(fill: Filling) -> None:
    done(fill, fill.job("captions"), "a", "\x1b[2J\x9b31m\u202e\u2028\x85")
    assert all(char.isprintable() for char in exported(fill, "jsonl").removesuffix("\n"))


def test_each_item_is_one_line_for_readers_that_split_at_any_line_break(fill: Filling) -> None:
    done(fill, fill.job("captions"), "a", "one\u2028two\x85three\x0bfour\nfive")
    assert len(exported(fill, "jsonl").splitlines()) == 1


def test_a_failed_item_has_its_error_and_no_text(fill: Filling) -> None:
    fill.item(fill.job("captions"), state=State.FAILED, error_kind="invalid", error="too large")
    found = record(fill)
    assert (found["text"], found["error"]) == (None, {"kind": "invalid", "message": "too large"})


def test_a_cut_answer_is_exported_with_its_finish_reason(fill: Filling) -> None:
    done(fill, fill.job("captions"), "a", "A ca", state=State.TRUNCATED, finish_reason="length")
    found = record(fill)
    assert (found["state"], found["finish_reason"], found["text"]) == ("truncated", "length", "A ca")


def test_items_that_have_not_ended_are_left_out(fill: Filling) -> None:
    job = fill.job("captions")
    for state in State:
        fill.item(job, state.value, state=state)
    found = [json.loads(line)["state"] for line in exported(fill, "jsonl").splitlines()]
    assert found == ["done", "truncated", "failed", "cancelled"]


def test_only_the_named_states_are_exported(fill: Filling) -> None:
    job = fill.job("captions")
    for state in State:
        fill.item(job, state.value, state=state)
    assert [json.loads(line)["state"] for line in exported(fill, "jsonl", states=[State.WAITING]).splitlines()] == [
        "waiting"
    ]


def test_an_export_is_one_view_of_the_database(fill: Filling) -> None:
    job = fill.job("captions")
    for number in range(3):
        done(fill, job, f"item {number}", "before")
    fill.connection.commit()
    engine = fill.connection.engine

    class Meddling(io.BytesIO):
        """Adds an item while the export is being written."""

        meddled = False

        def write(self, data: object, /) -> int:
            if not self.meddled:
                self.meddled = True
                with writing(engine) as connection:
                    Filling(connection, first=False).item(job, "late", state=State.DONE)
            return super().write(data)  # type: ignore[arg-type]  # bytes, as from every writer

    out = Meddling()
    export(engine, "captions", "jsonl", out)
    assert (out.meddled, len(out.getvalue().splitlines())) == (True, 3)


def test_a_record_holds_everything_on_both_databases(database_url: str) -> None:
    engine = connect(database_url)
    with engine.connect() as connection:
        fill = Filling(connection)
        item = fill.item(fill.job("captions"), path="cats/a.jpg", state=State.DONE)
        attempt = fill.attempt(item, text="A cat.", reasoning="Whiskers.", http_status=200, request_id="r-1")
        fill.usage(attempt, low="0.25", cached_tokens=0, raw={"total_tokens": 110})
        found = record(fill)
    engine.dispose()
    tokens = {
        "input_tokens": 100,
        "cached_tokens": 0,
        "cache_write_tokens": None,
        "output_tokens": 10,
        "reasoning_tokens": None,
        "image_tokens": None,
        "video_tokens": None,
    }
    noon = "2026-11-01T12:00:00Z"
    assert found == {
        "custom_id": "cats/a.jpg",
        "job": "captions",
        "simulated": False,
        "state": "done",
        "provider": "model-studio/singapore",
        "model": "qwen3-vl-plus",
        "text": "A cat.",
        "reasoning": "Whiskers.",
        "finish_reason": "stop",
        "parsed": None,
        "tool_calls": None,
        "error": None,
        "request_id": "r-1",
        "shared_with": None,
        "usage": {**tokens, "unknown_attempts": 0},
        "cost": {
            "low": "0.25",
            "high": "0.25",
            "currency": "USD",
            "unknown_attempts": 0,
            "settled_attempts": 0,
        },
        "variables": {"path": "cats/a.jpg", "filename": "a.jpg", "stem": "a"},
        "media": [{"kind": "image", "path": "cats/a.jpg", "size": 1}],
        "part_of": None,
        "finished_at": noon,
        "attempts": [
            {
                "outcome": "complete",
                "is_answer": True,
                "claimed_at": noon,
                "sent_at": noon,
                "first_token_at": None,
                "ended_at": noon,
                "http_status": 200,
                "error": None,
                "request_id": "r-1",
                "note": None,
                "usage": {**tokens, "raw": {"total_tokens": 110}},
                "cost": {"low": "0.25", "high": "0.25", "currency": "USD", "settled": None},
                "text": None,
                "reasoning": None,
            }
        ],
    }


# Files


def test_a_file_has_the_rows_and_the_hash_that_the_summary_tells(engine: Engine, fill: Filling, tmp_path: Path) -> None:
    done(fill, fill.job("captions"), "a", "A cat.")
    fill.connection.commit()
    summary = export(engine, "captions", "csv", tmp_path / "out.csv")
    content = (tmp_path / "out.csv").read_bytes()
    assert (summary.written, summary.sha256) == (1, hashlib.sha256(content).hexdigest())


def test_a_file_that_is_there_is_kept(engine: Engine, fill: Filling, tmp_path: Path) -> None:
    fill.job("captions")
    fill.connection.commit()
    (tmp_path / "out.jsonl").write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        export(engine, "captions", "jsonl", tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text() == "mine"


def test_a_file_that_is_there_is_replaced_when_asked_for(engine: Engine, fill: Filling, tmp_path: Path) -> None:
    fill.job("captions")
    fill.connection.commit()
    (tmp_path / "out.jsonl").write_text("mine")
    export(engine, "captions", "jsonl", tmp_path / "out.jsonl", overwrite=True)
    assert (tmp_path / "out.jsonl").read_text() == ""


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_link_is_never_written_through(engine: Engine, fill: Filling, tmp_path: Path, overwrite: bool) -> None:
    fill.job("captions")
    fill.connection.commit()
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "out.jsonl").symlink_to("precious")
    with pytest.raises(UsageError, match="is a link"):
        export(engine, "captions", "jsonl", tmp_path / "out.jsonl", overwrite=overwrite)
    assert (tmp_path / "precious").read_text() == "mine"


def test_an_export_that_breaks_off_leaves_nothing(engine: Engine, fill: Filling, tmp_path: Path) -> None:
    item = fill.item(fill.job("captions"), state=State.DONE)
    fill.connection.exec_driver_sql("UPDATE items SET variables = '{broken' WHERE id = ?", (item,))
    fill.connection.commit()
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(ValueError, match="property name"):
        export(engine, "captions", "jsonl", folder / "out.jsonl")
    assert os.listdir(folder) == []


def test_a_folder_that_is_missing_is_named(engine: Engine, fill: Filling, tmp_path: Path) -> None:
    fill.job("captions")
    fill.connection.commit()
    with pytest.raises(UsageError, match="can't write"):
        export(engine, "captions", "jsonl", tmp_path / "nowhere" / "out.jsonl")


# CSV


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "＝1+1", "＋1", "－1", "＠x", "\n=1", "  =1", "\u200b=1", "-"],
)
def test_cells_that_a_spreadsheet_takes_for_formulas_are_marked(fill: Filling, text: str) -> None:
    done(fill, fill.job("captions"), "a", text)
    assert cells(fill)[0]["text"] == "'" + text


@pytest.mark.parametrize("text", ["A cat.", "1+1=2", "", "'quoted'", "猫", " a", "a\n=1"])
def test_other_cells_are_left_alone(text: str) -> None:
    assert disarmed(text) == text


def test_an_id_is_a_cell_too(fill: Filling) -> None:
    done(fill, fill.job("captions"), "=HYPERLINK(1)", "x")
    assert cells(fill)[0]["custom_id"] == "'=HYPERLINK(1)"


def test_raw_leaves_cells_as_they_are(fill: Filling) -> None:
    done(fill, fill.job("captions"), "a", "=1+1")
    assert cells(fill, raw=True)[0]["text"] == "=1+1"


def test_line_breaks_quotes_and_commas_stay_in_their_cell(fill: Filling) -> None:
    text = 'one,\n"two"\r\nthree;\r\n'
    done(fill, fill.job("captions"), "a", text)
    assert cells(fill)[0]["text"] == text


def test_what_is_unknown_is_an_empty_cell(fill: Filling) -> None:
    item = fill.item(fill.job("captions"), state=State.DONE)
    fill.usage(fill.attempt(item, text="x"), low=None, input_tokens=None)
    (row,) = cells(fill)
    assert (row["cost_low"], row["input_tokens"], row["unknown_cost_attempts"]) == ("", "", "1")


# Sidecars


def captions(fill: Filling, photos: Path, *, sidecar: str = "{{ stem }}.txt", **output: str) -> int:
    return fill.job(
        "captions",
        media_root=str(photos),
        spec={"output": {"sidecar": sidecar, "folder": None, **output}, "base": str(photos.parent)},
    )


def captioned(fill: Filling, job: int, path: str, text: str = "A cat.", **values: object) -> None:
    item = fill.item(job, path=path, state=State.DONE, **values)  # type: ignore[arg-type]  # passed on as given
    fill.attempt(item, text=text)


def placed(fill: Filling, **options: object) -> Sidecars:
    fill.connection.commit()
    summary: ExportSummary = export(fill.connection.engine, "captions", "sidecar", None, **options)  # type: ignore[arg-type]  # passed on
    assert summary.sidecars is not None
    return summary.sidecars


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def test_a_caption_stands_beside_its_picture(fill: Filling, photos: Path) -> None:
    (photos / "cats").mkdir()
    captioned(fill, captions(fill, photos), "cats/a.jpg", "A cat.")
    placed(fill)
    assert (photos / "cats" / "a.txt").read_text() == "A cat.\n"


@pytest.mark.parametrize("text", ["A cat.", "A cat.\n", "A cat.\r\n\n"])
def test_a_caption_ends_with_one_line_break(fill: Filling, photos: Path, text: str) -> None:
    captioned(fill, captions(fill, photos), "a.jpg", text)
    placed(fill)
    assert (photos / "a.txt").read_bytes() == b"A cat.\n"


def test_sub_folders_are_kept_below_the_named_folder(fill: Filling, photos: Path) -> None:
    job = captions(fill, photos, folder="captions")
    captioned(fill, job, "cats/black/a.jpg")
    captioned(fill, job, "b.jpg")
    placed(fill)
    assert files(photos.parent / "captions") == ["b.txt", "cats/black/a.txt"]


def test_a_folder_on_the_command_line_goes_first(fill: Filling, photos: Path, tmp_path: Path) -> None:
    captioned(fill, captions(fill, photos, folder="captions"), "a.jpg")
    fill.connection.commit()
    export(fill.connection.engine, "captions", "sidecar", tmp_path / "elsewhere")
    assert files(tmp_path / "elsewhere") == ["a.txt"]


def test_a_caption_that_is_there_is_kept_and_counted(fill: Filling, photos: Path) -> None:
    captioned(fill, captions(fill, photos), "a.jpg")
    (photos / "a.txt").write_text("mine")
    summary = placed(fill)
    assert ((photos / "a.txt").read_text(), summary.present, summary.written) == ("mine", 1, 0)


def test_a_caption_that_is_there_is_replaced_when_asked_for(fill: Filling, photos: Path) -> None:
    captioned(fill, captions(fill, photos), "a.jpg")
    (photos / "a.txt").write_text("mine")
    placed(fill, overwrite=True)
    assert (photos / "a.txt").read_text() == "A cat.\n"


@pytest.mark.parametrize("overwrite", [False, True])
def test_the_first_of_two_pictures_keeps_a_common_caption(fill: Filling, photos: Path, overwrite: bool) -> None:
    job = captions(fill, photos)
    captioned(fill, job, "a.jpg", "first")
    captioned(fill, job, "a.png", "second")
    summary = placed(fill, overwrite=overwrite)
    assert ((photos / "a.txt").read_text(), summary.collisions) == ("first\n", 1)


def test_a_collision_names_both_pictures_and_the_remedy(fill: Filling, photos: Path) -> None:
    job = captions(fill, photos)
    captioned(fill, job, "a.jpg")
    captioned(fill, job, "a.png")
    assert placed(fill).shown == ["a.png: a.txt belongs to a.jpg; use `{{ filename }}.txt`"]


def test_a_collision_is_found_again_in_the_next_export(fill: Filling, photos: Path) -> None:
    job = captions(fill, photos)
    captioned(fill, job, "a.jpg")
    captioned(fill, job, "a.png")
    placed(fill)
    summary = placed(fill)
    assert (summary.present, summary.collisions) == (1, 1)


def test_the_remedy_against_collisions_helps(fill: Filling, photos: Path) -> None:
    job = captions(fill, photos, sidecar="{{ filename }}.txt")
    captioned(fill, job, "a.jpg")
    captioned(fill, job, "a.png")
    placed(fill)
    assert files(photos) == ["a.jpg.txt", "a.png.txt"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_caption_is_not_written_through_a_link(fill: Filling, photos: Path, overwrite: bool) -> None:
    (photos.parent / "precious").write_text("mine")
    (photos / "a.txt").symlink_to("../precious")
    captioned(fill, captions(fill, photos), "a.jpg")
    summary = placed(fill, overwrite=overwrite)
    assert ((photos.parent / "precious").read_text(), summary.refused) == ("mine", 1)


def test_a_linked_folder_does_not_lead_out(fill: Filling, photos: Path) -> None:
    outside = photos.parent / "outside"
    outside.mkdir()
    (photos / "cats").symlink_to(outside)
    captioned(fill, captions(fill, photos), "cats/a.jpg")
    summary = placed(fill)
    assert (files(outside), summary.refused) == ([], 1)


@pytest.mark.parametrize(
    "name", ["../../evil", "/etc/evil", "a/b", "a\\b", "..", ".", "", "a\nb", "a\x1b[2J", "a\u202eb", "x" * 256]
)
def test_a_row_can_not_name_anything_but_a_file_of_the_folder(fill: Filling, photos: Path, name: str) -> None:
    captioned(fill, captions(fill, photos, sidecar="{{ title }}"), "a.jpg", variables={"title": name})
    summary = placed(fill)
    assert (files(photos.parent), summary.refused) == (["batchrun.db", "batchrun.db-shm", "batchrun.db-wal"], 1)


@pytest.mark.parametrize("sidecar", ["{{ filename }}", "{{ stem }}.png", "{{ stem }}.JPG"])
def test_a_picture_is_never_overwritten(fill: Filling, photos: Path, sidecar: str) -> None:
    (photos / "a.png").write_bytes(b"picture")
    captioned(fill, captions(fill, photos, sidecar=sidecar), "a.png")
    summary = placed(fill, overwrite=True)
    assert ((photos / "a.png").read_bytes(), summary.refused) == (b"picture", 1)


def test_one_refused_name_does_not_stop_the_others(fill: Filling, photos: Path) -> None:
    job = captions(fill, photos, sidecar="{{ title }}.txt")
    captioned(fill, job, "a.jpg", variables={"title": "../a"})
    captioned(fill, job, "b.jpg", variables={"title": "b"})
    placed(fill)
    assert files(photos) == ["b.txt"]


def test_a_cut_caption_is_left_out_and_counted(fill: Filling, photos: Path) -> None:
    item = fill.item(captions(fill, photos), path="a.jpg", state=State.TRUNCATED)
    fill.attempt(item, text="A ca", finish_reason="length")
    summary = placed(fill)
    assert (files(photos), summary.cut) == ([], 1)


def test_a_cut_caption_is_written_when_named(fill: Filling, photos: Path) -> None:
    item = fill.item(captions(fill, photos), path="a.jpg", state=State.TRUNCATED)
    fill.attempt(item, text="A ca", finish_reason="length")
    placed(fill, states=[State.TRUNCATED])
    assert (photos / "a.txt").read_text() == "A ca\n"


def test_a_job_without_output_says_what_to_add(fill: Filling) -> None:
    fill.job("captions", media_root="/nowhere")
    with pytest.raises(UsageError, match="doesn't say how") as caught:
        placed(fill)
    assert "output: {sidecar:" in caught.value.remedy


def test_a_folder_of_pictures_that_is_gone_is_not_made_anew(fill: Filling, photos: Path) -> None:
    captioned(fill, captions(fill, photos / "gone"), "a.jpg")
    with pytest.raises(UsageError, match="can't use the folder"):
        placed(fill)
    assert not (photos / "gone").exists()


def test_no_file_of_a_beginning_stays_behind(fill: Filling, photos: Path) -> None:
    captioned(fill, captions(fill, photos), "a.jpg")
    placed(fill)
    assert files(photos) == ["a.txt"]


def test_the_cost_of_an_item_in_two_currencies_is_left_to_its_attempts(fill: Filling) -> None:
    item = fill.item(fill.job("captions"), state=State.DONE)
    fill.usage(fill.attempt(item, outcome="failed"), low="1", currency="CNY")
    fill.usage(fill.attempt(item, text="x"), low="2", currency="USD")
    found = record(fill)
    assert isinstance(found["attempts"], list)
    assert [Decimal(attempt["cost"]["low"]) for attempt in found["attempts"]] == [1, 2]
    assert found["cost"] == {
        "low": None, "high": None, "currency": None, "unknown_attempts": 0, "settled_attempts": 0,
    }  # fmt: skip
