"""What a vendor says about where a file may go, and the form that goes there (contract 8.8)."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchrun.dialects.base import Body
from batchrun.errors import ErrorKind, MediaError, ProviderError
from batchrun.media import OpenMedia, open_media
from batchrun.media.videos import FilePart
from batchrun.uploads.upload_form import (
    UploadRules,
    account_of,
    check_upload_host,
    check_upload_size,
    form_of,
    read_policy,
    read_refusal,
)

BASE = "https://dashscope.aliyuncs.com/api/v1"
HOSTS = ("aliyuncs.com",)
GRANT: dict[str, object] = {
    "policy": "cG9saWN5",
    "signature": "c2lnbg==",
    "upload_dir": "instant/2f/9",
    "upload_host": "https://files.oss-cn-beijing.aliyuncs.com",
    "expire_in_seconds": 300,
    "max_file_size_mb": 1,
    "capacity_limit_mb": 9,
    "oss_access_key_id": "LTAI",
    "x_oss_object_acl": "private",
    "x_oss_forbid_overwrite": "true",
}
BMP = b"BM" + (54 + 300).to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little") + (40).to_bytes(4, "little")
BMP += (20).to_bytes(4, "little") + (20).to_bytes(4, "little") + bytes(28 + 300)


def answer(**changes: object) -> bytes:
    return json.dumps({"request_id": "r", "data": {**GRANT, **changes}}).encode()


@pytest.fixture
def picture(tmp_path: Path) -> Iterator[OpenMedia]:
    (tmp_path / 'secret "name".bmp').write_bytes(BMP)
    with open_media(tmp_path, 'secret "name".bmp') as opened:
        yield opened


def sent(body: Body) -> bytes:
    return b"".join(piece if isinstance(piece, bytes) else b"".join(piece.read_encoded()) for piece in body.pieces)


def test_the_form_on_the_wire(picture: OpenMedia) -> None:
    """Its fields in their order, the file as its own bytes and last, and nothing of the file's own name."""
    key, content_type, body = form_of(picture, read_policy(answer(), base_url=BASE, hosts=HOSTS))
    boundary = content_type.removeprefix("multipart/form-data; boundary=")
    fields = {
        "OSSAccessKeyId": "LTAI",
        "Signature": "c2lnbg==",
        "policy": "cG9saWN5",
        "x-oss-object-acl": "private",
        "x-oss-forbid-overwrite": "true",
        "success_action_status": "200",
        "key": key,
        "x-oss-content-type": "image/bmp",
    }
    texts = "".join(
        f'--{boundary}\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'
        for name, text in fields.items()
    )
    texts += f'--{boundary}\r\ncontent-disposition: form-data; name="file"; filename="file.bmp"\r\n'
    expected = texts.encode() + b"content-type: image/bmp\r\n\r\n" + BMP + f"\r\n--{boundary}--\r\n".encode()
    assert sent(body) == expected
    assert body.length == len(expected)


def test_a_video_is_streamed_from_the_disk(tmp_path: Path) -> None:
    """64 MB of it, and no more than some blocks in memory."""
    size = 64 * 1024 * 1024 + 1
    with (tmp_path / "a.mp4").open("wb") as made:
        made.truncate(size)
    with (tmp_path / "a.mp4").open("rb", buffering=0) as file:
        part = FilePart(file, "a.mp4", "video/mp4", size=size)
        key, _, body = form_of(part, read_policy(answer(), base_url=BASE, hosts=HOSTS))
        tracemalloc.start()
        pieces = (piece.read_encoded() if not isinstance(piece, bytes) else [piece] for piece in body.pieces)
        length = sum(len(block) for piece in pieces for block in piece)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert (length, key.endswith(".mp4"), peak < 2_000_000) == (body.length, True, True)
    assert part.digest == hashlib.sha256(bytes(size)).hexdigest()


def test_every_upload_has_a_name_of_its_own_in_the_folder_of_the_policy(picture: OpenMedia) -> None:
    policy = read_policy(answer(), base_url=BASE, hosts=HOSTS)
    keys = {form_of(picture, policy)[0] for _ in range(3)}
    assert (len(keys), {key.rpartition("/")[0] for key in keys}) == (3, {"instant/2f/9"})


@pytest.mark.parametrize(
    "url",
    [
        "http://files.aliyuncs.com",
        "https://files.aliyuncs.com.evil.example",
        "https://evil-aliyuncs.com",
        "https://aliyuncs.com@evil.example",
        "https://user@files.aliyuncs.com",
        "https://evil.example/.aliyuncs.com",
        "https://evil.example\\.aliyuncs.com",
        "https://evil.example#.aliyuncs.com",
        "https://files.aliyuncs.com:8443",
        "https://files.aliyuncs.com\r\nx: y",
        "https://127.0.0.1",
        "http://dashscope.aliyuncs.com",
        "file:///etc/passwd",
        "https://[::1",
        "",
    ],
)
def test_a_file_goes_to_no_stranger(url: str) -> None:
    with pytest.raises(MediaError) as caught:
        read_policy(answer(upload_host=url), base_url=BASE, hosts=HOSTS)
    assert caught.value.code == "upload-host"


@pytest.mark.parametrize(
    ("url", "base_url"),
    [
        ("https://files.oss-cn-beijing.aliyuncs.com", BASE),
        ("https://files.aliyuncs.com:443/x", BASE),
        ("http://127.0.0.1:8000/oss", "http://127.0.0.1:8000/api/v1"),
    ],
)
def test_the_vendors_hosts_and_the_server_that_was_asked_may_have_it(url: str, base_url: str) -> None:
    check_upload_host(url, base_url=base_url, hosts=HOSTS)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b'{"data": null}',
        b'{"data": {"policy": "x"}}',
        b"[" * 100_000,
        answer(policy=""),
        answer(policy=5),
        answer(signature="a\r\nb"),
        answer(upload_dir="a\nb"),
        answer(oss_access_key_id="\u00e4"),
    ],
)
def test_what_is_no_policy_is_not_used(body: bytes) -> None:
    with pytest.raises(ProviderError) as caught:
        read_policy(body, base_url=BASE, hosts=HOSTS)
    assert caught.value.kind is ErrorKind.MEDIA_UNAVAILABLE


def test_a_file_above_the_limit_of_the_policy_is_refused(picture: OpenMedia) -> None:
    policy = read_policy(answer(max_file_size_mb=0.0001), base_url=BASE, hosts=HOSTS)
    with pytest.raises(MediaError) as caught:
        check_upload_size(picture, policy)
    assert (caught.value.code, "104 at most" in caught.value.message) == ("media-too-large", True)


@pytest.mark.parametrize(("status", "passes"), [(403, True), (409, True), (429, True), (500, True), (503, True)])
def test_what_the_storage_may_take_later_is_tried_again(status: int, passes: bool) -> None:
    error = read_refusal(status, b"<Error><Code>X</Code></Error>", "a.png")
    assert isinstance(error, ProviderError) is passes


def test_what_the_storage_will_never_take_is_the_items_error_in_clean_words() -> None:
    body = b"<Error><Code>EntityTooLarge</Code><Message>no\x1b[31m sk-abcdef1234567890 " + b"x" * 9_000
    error = read_refusal(400, body, "a.png")
    assert error.code == "upload-refused"
    assert "EntityTooLarge: no\\x1b[31m [hidden]" in error.message
    assert len(error.message) < 400


def test_an_account_is_told_by_its_key_and_never_tells_it() -> None:
    assert account_of("sk-one") != account_of("sk-two")
    assert "sk-one" not in account_of("sk-one")


def test_what_lets_others_in_is_not_shown() -> None:
    policy = read_policy(answer(), base_url=BASE, hosts=HOSTS)
    rules = UploadRules(
        which="always",
        policy_url="https://x",
        headers={"authorization": "Bearer canary"},
        base_url=BASE,
        hosts=HOSTS,
        account="a",
        read_error=lambda *_: ProviderError(ErrorKind.SERVER, "x"),
    )
    assert "c2lnbg==" not in repr(policy)
    assert "canary" not in repr(rules)
