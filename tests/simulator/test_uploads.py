"""Temporary uploads (contract 8.8): the unmodified SDK, and what the storage and the calls refuse."""

import io
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dashscope
import pytest
from PIL import Image

from batchrun.simulator import Options, Running, start
from batchrun.simulator.http import HttpRequest
from batchrun.simulator.refusals import Refusal
from batchrun.simulator.uploads import MAX_VIDEO, Stored, Uploads

from .raw import Client, Raw, read_response
from .test_validation import looking

RESOLVE = "x-dashscope-ossresourceresolve: enable\r\n"
BOUNDARY = "a-boundary-of-the-tests"


def picture(width: int = 400, height: int = 300) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (200, 90, 10)).save(file, "PNG")
    return file.getvalue()


def box(kind: bytes, *contents: bytes) -> bytes:
    content = b"".join(contents)
    return struct.pack(">I", 8 + len(content)) + kind + content


def clip(seconds: int = 10, rate: int = 25) -> bytes:
    """The boxes of an MP4 that tell its size and length; it has no frames."""
    track = box(
        b"trak",
        box(b"tkhd", bytes(76), struct.pack(">II", 640 << 16, 360 << 16)),
        box(
            b"mdia",
            box(b"mdhd", bytes(12), struct.pack(">II", 1_000, seconds * 1_000), bytes(4)),
            box(b"hdlr", bytes(8), b"vide", bytes(12)),
            box(b"minf", box(b"stbl", box(b"stts", bytes(4), struct.pack(">III", 1, seconds * rate, 40)))),
        ),
    )
    return box(b"ftyp", b"isom", bytes(4), b"isom") + box(b"moov", track)


def send(client: Client, head: str, body: bytes = b"") -> Raw:
    with client.connect() as connection:
        connection.settimeout(10)
        connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        return read_response(lambda: connection.recv(65_536))


def ask_policy(client: Client, *, region: str = "singapore", model: str = "qwen3-vl-plus", key: str = "") -> Raw:
    key = key or client.simulator.keys[region]
    path = f"/{region}/api/v1/uploads?action=getPolicy&model={model}"
    return send(client, f"GET {path} HTTP/1.1\r\nhost: storage.example\r\nauthorization: Bearer {key}\r\n")


def policy_of(client: Client, **more: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(ask_policy(client, **more).body)["data"]
    return data


def fields_of(policy: Mapping[str, Any], name: str = "a.png") -> dict[str, str]:
    return {
        "OSSAccessKeyId": policy["oss_access_key_id"],
        "Signature": policy["signature"],
        "policy": policy["policy"],
        "x-oss-object-acl": policy["x_oss_object_acl"],
        "x-oss-forbid-overwrite": policy["x_oss_forbid_overwrite"],
        "key": f"{policy['upload_dir']}/{name}",
        "success_action_status": "200",
    }


def form(fields: Mapping[str, str], data: bytes, *, file_first: bool = False) -> bytes:
    parts = [f'content-disposition: form-data; name="{name}"\r\n\r\n{value}'.encode() for name, value in fields.items()]
    file = b'content-disposition: form-data; name="file"; filename="a.png"\r\ncontent-type: image/png\r\n\r\n' + data
    parts = [file, *parts] if file_first else [*parts, file]
    return b"".join(f"--{BOUNDARY}\r\n".encode() + part + b"\r\n" for part in parts) + f"--{BOUNDARY}--\r\n".encode()


def post(client: Client, body: bytes, headers: str = "") -> Raw:
    head = f"POST /oss HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data; boundary={BOUNDARY}\r\n{headers}"
    return send(client, head, body)


def uploaded(client: Client, data: bytes | None = None, mime: str = "", **more: str) -> str:
    fields = fields_of(policy_of(client, **more)) | ({"x-oss-content-type": mime} if mime else {})
    raw = post(client, form(fields, picture() if data is None else data))
    assert (raw.status, raw.body) == (200, b"")
    return f"oss://{fields['key']}"


class ResolvingClient(Client):
    extra_headers = RESOLVE


@pytest.fixture
def resolving(simulator: Running) -> Client:
    return ResolvingClient(simulator)


def see(simulator: Running, part: dict[str, Any], model: str = "qwen3-vl-plus") -> Any:
    return dashscope.MultiModalConversation.call(
        api_key=simulator.keys["beijing"],
        model=model,
        messages=[{"role": "user", "content": [part, {"text": "Look."}]}],
    )


@pytest.fixture
def by_sdk(simulator: Running, monkeypatch: pytest.MonkeyPatch) -> Running:
    """The SDK takes the address of the uploads from this setting alone."""
    monkeypatch.setattr(dashscope, "base_http_api_url", simulator.native_url("beijing"))
    return simulator


def test_the_sdk_uploads_a_picture_and_names_it_in_its_call(by_sdk: Running, tmp_path: Path) -> None:
    file = tmp_path / "a picture.png"
    file.write_bytes(picture(320, 320))
    answer = see(by_sdk, {"image": file.as_uri().replace("%20", "+")})
    assert (answer.status_code, answer.usage["image_tokens"]) == (200, 10 * 10 + 2)


def test_the_sdk_uploads_a_video_and_names_it_in_its_call(by_sdk: Running, tmp_path: Path) -> None:
    file = tmp_path / "clip.mp4"
    file.write_bytes(clip())
    answer = see(by_sdk, {"video": file.as_uri(), "fps": 1})
    assert (answer.status_code, answer.usage["video_tokens"] > 0) == (200, True)


def test_an_uploaded_video_becomes_tokens_by_what_is_in_it(client: Client, resolving: Client) -> None:
    """20 frames of 640x360, brought to 640x352: 10 grids of 20 by 11 tokens, and two marks."""
    url = uploaded(client, clip(), "video/mp4")
    part = {"type": "video_url", "video_url": {"url": url}, "fps": 2}
    raw = resolving.ask(resolving.body(messages=[{"role": "user", "content": [part, {"type": "text", "text": "?"}]}]))
    details = json.loads(raw.body)["usage"]["prompt_tokens_details"]
    assert (raw.status, details["video_tokens"]) == (200, 10 * 20 * 11 + 2)


@pytest.mark.parametrize(
    ("data", "mime", "message"),
    [
        (b"no video at all", "video/mp4", "Invalid video file"),
        (clip(seconds=1), "video/mp4", "must last 2 to 3600"),
        (clip(), "image/png", "not supported"),
    ],
)
def test_an_uploaded_file_that_is_no_such_video_is_refused(
    client: Client, resolving: Client, data: bytes, mime: str, message: str
) -> None:
    part = {"type": "video_url", "video_url": {"url": uploaded(client, data, mime)}}
    raw = resolving.ask(resolving.body(messages=[{"role": "user", "content": [part]}]))
    assert (raw.status, message in str(raw.error["message"])) == (400, True)


def test_a_video_of_more_than_100_mb_is_refused() -> None:
    uploads = Uploads(keys={"singapore": "sk-x"}, lifetime=60, limits=True, clock=lambda: 0.0)
    for name, size in (("a", MAX_VIDEO), ("b", MAX_VIDEO + 1)):
        uploads.files[name] = Stored(account="singapore", model="m", mime="video/mp4", data=bytes(size), ends=1.0)
    resolve = uploads.resolver("singapore", "m", {"x-dashscope-ossresourceresolve": "enable"})
    assert len(resolve("oss://a")[1]) == MAX_VIDEO
    with pytest.raises(Refusal) as refused:
        resolve("oss://b")
    assert "too large" in refused.value.message


def test_the_same_file_gives_the_same_answer_under_another_name(client: Client, resolving: Client) -> None:
    first, second = (resolving.ask(resolving.body(messages=looking(uploaded(client)))) for _ in range(2))
    assert first.json()["choices"] == second.json()["choices"]


def test_without_the_header_the_address_is_refused(client: Client) -> None:
    raw = client.ask(client.body(messages=looking(uploaded(client))))
    assert (raw.status, "resolve header" in str(raw.error["message"])) == (400, True)


@pytest.mark.parametrize(("region", "model"), [("beijing", "qwen3-vl-plus"), ("singapore", "qwen-vl-max")])
def test_another_account_or_another_model_is_refused(
    client: Client, resolving: Client, region: str, model: str
) -> None:
    raw = resolving.ask(resolving.body(model=model, messages=looking(uploaded(client))), region=region)
    assert (raw.status, "another" in str(raw.error["message"])) == (400, True)


def test_a_file_that_has_expired_is_refused() -> None:
    with start(Options(ttft=0, tokens_per_second=0, upload_lifetime=0), environment={}) as simulator:
        client = ResolvingClient(simulator)
        raw = client.ask(client.body(messages=looking(uploaded(client))))
    assert (raw.status, "could not be downloaded" in str(raw.error["message"])) == (400, True)


def test_the_bytes_decide_whether_a_picture_is_taken(client: Client, resolving: Client) -> None:
    raw = resolving.ask(resolving.body(messages=looking(uploaded(client, b"no picture"))))
    assert (raw.status, "decoded" in str(raw.error["message"])) == (400, True)


def test_a_picture_of_more_than_10_mb_is_refused(client: Client, resolving: Client) -> None:
    raw = resolving.ask(resolving.body(messages=looking(uploaded(client, picture() + bytes(10 * 1_048_576)))))
    assert (raw.status, "too large" in str(raw.error["message"])) == (400, True)


def test_the_file_must_be_the_last_field(client: Client) -> None:
    raw = post(client, form(fields_of(policy_of(client)), picture(), file_first=True))
    assert (raw.status, b"last field" in raw.body) == (400, True)


@pytest.mark.parametrize("missing", ["OSSAccessKeyId", "Signature", "policy", "key", "x-oss-object-acl"])
def test_every_field_of_the_policy_must_be_there(client: Client, missing: str) -> None:
    fields = fields_of(policy_of(client))
    del fields[missing]
    raw = post(client, form(fields, picture()))
    assert (raw.status, missing.encode() in raw.body) == (400, True)


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("Signature", "x", b"SignatureDoesNotMatch"),
        ("policy", "x", b"SignatureDoesNotMatch"),
        ("OSSAccessKeyId", "x", b"InvalidAccessKeyId"),
        ("key", "elsewhere/a.png", b"AccessDenied"),
    ],
)
def test_what_the_policy_doesnt_allow_is_refused(client: Client, name: str, value: str, code: bytes) -> None:
    raw = post(client, form({**fields_of(policy_of(client)), name: value}, picture()))
    assert (raw.status, code in raw.body) == (403, True)


def test_the_same_key_can_be_stored_once(client: Client) -> None:
    body = form(fields_of(policy_of(client)), picture())
    assert [post(client, body).status, post(client, body).status] == [200, 409]


def test_a_key_in_a_header_has_no_place_at_the_storage(client: Client) -> None:
    body = form(fields_of(policy_of(client)), picture())
    assert post(client, body, "authorization: Bearer sk-x\r\n").status == 400


@pytest.mark.parametrize(
    ("more", "status"), [({"key": "sk-wrong"}, 401), ({"model": "gpt-x"}, 404), ({"region": "beijing"}, 200)]
)
def test_a_policy_is_for_a_key_and_a_model(client: Client, more: dict[str, str], status: int) -> None:
    assert ask_policy(client, **more).status == status


def test_policies_are_limited_to_100_in_a_second() -> None:
    uploads = Uploads(keys={"singapore": "sk-x"}, lifetime=60, limits=True, clock=lambda: 0.0)
    request = HttpRequest(
        method="GET",
        target="/singapore/api/v1/uploads?action=getPolicy&model=qwen3-vl-plus",
        headers={"authorization": "Bearer sk-x"},
        body=b"",
        keep_alive=True,
    )
    statuses = [uploads.policy_reply(request, "singapore", "").status for _ in range(102)]
    assert statuses == [200] * 100 + [429] * 2
