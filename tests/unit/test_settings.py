"""What the environment says, and how keys are kept out of texts."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchrun.database import parse_url, sqlite_path
from batchrun.errors import UsageError
from batchrun.settings import Settings, current_folder, masked, read_settings

KEY = "sk-0123456789abcdef"


def settings(folder: Path = Path("/srv"), **environment: str) -> Settings:
    return read_settings(environment, folder)


def test_the_database_stands_beside_the_work() -> None:
    assert settings(Path("/srv")).database_url == "sqlite:////srv/.batchrun/batchrun.db"


@pytest.mark.parametrize("name", ["which?", "100% done", "a%20b", "c#1", "user@host:8", "two words", "写真", "a=b&c"])
def test_the_folder_may_have_any_name(name: str) -> None:
    folder = Path("/srv") / name
    url = parse_url(settings(folder).database_url)
    assert sqlite_path(url) == folder / ".batchrun" / "batchrun.db"


def test_the_environment_names_another_database() -> None:
    assert settings(DATABASE_URL=" postgresql://me@host/name\n").database_url == "postgresql://me@host/name"


@pytest.mark.parametrize("blank", ["", "  "])
def test_a_blank_address_is_none(blank: str) -> None:
    assert settings(DATABASE_URL=blank).database_url == settings().database_url


def test_the_own_catalogue_is_found_below_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert settings(BATCHRUN_CATALOGUE="~/own.yaml").catalogue == Path("/home/me/own.yaml")


def test_the_home_of_nobody_is_left_as_it_is_written() -> None:
    assert settings(BATCHRUN_CATALOGUE="~no-such-user/own.yaml").catalogue == Path("~no-such-user/own.yaml")


def test_a_current_folder_that_is_gone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(UsageError, match="it may have been deleted"):
        current_folder()


def test_without_a_name_there_is_no_own_catalogue() -> None:
    assert settings(BATCHRUN_CATALOGUE=" ").catalogue is None


def test_the_first_variable_that_is_set_is_the_key() -> None:
    key = settings(FIRST=" ", SECOND=KEY, THIRD="sk-other-key").key(["FIRST", "SECOND", "THIRD"])
    assert key is not None
    assert (key.name, key.reveal()) == ("SECOND", KEY)


def test_no_variable_no_key() -> None:
    assert settings().key(["FIRST", "SECOND"]) is None


def test_a_line_end_after_the_key_is_not_part_of_it() -> None:
    key = settings(KEY=f"{KEY}\r\n").key(["KEY"])
    assert key is not None
    assert key.reveal() == KEY


@pytest.mark.parametrize(
    "value", [f'"{KEY}"', f"'{KEY}'", f"Bearer {KEY}", f"{KEY}\n{KEY}", f"{KEY}\x00", f"{KEY}…", f"{KEY}\u200b"]
)
def test_what_can_not_be_a_key_is_refused_without_being_shown(value: str) -> None:
    with pytest.raises(UsageError) as caught:
        settings(MY_KEY=value).key(["MY_KEY"])
    assert caught.value.code == "key-malformed"
    assert "MY_KEY" in str(caught.value)
    assert KEY not in f"{caught.value}{caught.value.remedy}"


@pytest.mark.parametrize("form", ["{}", "{!r}", "{!s}"])
def test_the_text_of_a_key_is_stars(form: str) -> None:
    key = settings(MY_KEY=KEY).key(["MY_KEY"])
    assert form.format(key) == "Secret(MY_KEY=***)"


def test_keys_are_masked_wherever_they_stand() -> None:
    assert masked(f"key {KEY}, again {KEY}.", [KEY]) == "key ***, again ***."


@pytest.mark.parametrize("order", [1, -1])
def test_a_key_that_begins_like_another_leaves_no_rest_of_it(order: int) -> None:
    assert masked(f"{KEY}-and-more", [KEY, f"{KEY}-and-more"][::order]) == "***"


def test_a_text_without_keys_stays() -> None:
    assert masked("nothing here", [KEY]) == "nothing here"


def test_short_values_are_not_searched_for() -> None:
    assert settings(A="key", B=KEY, C="").secrets(["A", "B", "C", "D"]) == (KEY,)


# Media roots

LOADED = Path("/home/a/photos")


@pytest.mark.parametrize(
    ("value", "here"),
    [
        ("", "/home/a/photos"),
        ("/mnt/photos", "/mnt/photos"),
        ("/home/a=/mnt/a", "/mnt/a/photos"),
        ("/home/a/photos=/mnt/p", "/mnt/p"),
        ("/home/ab=/x:/home/a=/y:/other", "/y/photos"),
        ("/srv=/x:/other", "/other"),
        ("/home/a/pho=/x", "/home/a/photos"),
    ],
)
def test_a_folder_of_media_lies_elsewhere_on_another_machine(value: str, here: str) -> None:
    assert settings(BATCHRUN_MEDIA_ROOT=value).media_root(LOADED) == Path(here)


@pytest.mark.parametrize("value", ["photos", "/a=b", "a=/b", "="])
def test_a_media_root_that_is_not_absolute_is_refused(value: str) -> None:
    with pytest.raises(UsageError, match="which isn't absolute"):
        settings(BATCHRUN_MEDIA_ROOT=value)
