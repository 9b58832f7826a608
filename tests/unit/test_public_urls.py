"""Which media URLs may be asked from this machine, and what their servers must answer."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from batchrun.errors import MediaError
from batchrun.media.public import Seen, Wanted, check_addresses, check_seen, is_public, shortened, target_of

PRIVATE = [
    "127.0.0.1",
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "100.100.100.200",
    "169.254.169.254",
    "172.31.255.255",
    "192.0.0.8",
    "192.0.2.1",
    "192.168.1.1",
    "198.19.0.1",
    "203.0.113.9",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "3fff::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_is_not_clearly_public_is_refused(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "47.88.1.2", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101", "172.32.0.1"]
)
def test_a_public_address_passes(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost/a.png",
        "http://localhost./a.png",
        "http://LOCALHOST/a.png",
        "http://a.localhost/a.png",
        "http://intranet/a.png",
        "http://127.1/a.png",
        "http://2130706433/a.png",
        "http://0x7f000001/a.png",
        "http://0x7f.0.0.1/a.png",
        "http://0177.0.0.1/a.png",
        "http://017700000001/a.png",
        "http://127.0.0.1./a.png",
        "http://①②⑦.⓪.⓪.①/a.png",
        "http://127。0。0。1/a.png",
        "http://[::1]/a.png",
        "http://[::ffff:7f00:1]/a.png",
        "http://[0:0:0:0:0:ffff:127.0.0.1]/a.png",
        "http://127.0.0.1%2f.example.org/a.png",
        "http://example.org:8080/a.png",
        "http://example.org:22/a.png",
        "https://1.1.1.1:6379/a.png",
    ],
)
def test_a_host_or_port_that_only_this_machine_may_reach_is_refused(url: str) -> None:
    with pytest.raises(MediaError) as caught:
        target_of(url, ())
    assert caught.value.code == "media-url-private"


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.org/a.png",
        "file:///etc/passwd",
        "gopher://example.org/a",
        "//example.org/a.png",
        "http://",
        "http:///a.png",
        "http://user@example.org/a.png",
        "http://user:word@example.org/a.png",
        "http://example.org\\@127.0.0.1/a.png",
        "http://example.org:99999/a.png",
        "http://exa mple.org/a.png",
        "http://example.org/\n",
        f"http://{'a' * 300}.org/a.png",
        "http://[::1/a.png",
    ],
)
def test_what_is_no_plain_web_address_is_refused(url: str) -> None:
    with pytest.raises(MediaError) as caught:
        target_of(url, ())
    assert caught.value.code == "media-url"


@pytest.mark.parametrize(
    "url", ["https://example.org/a.png", "http://example.org:443/a", "https://bücher.example.org/a", "http://1.1.1.1/a"]
)
def test_a_public_web_address_may_be_asked(url: str) -> None:
    assert not target_of(url, ()).trusted


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://127.0.0.1:8080/a", "127.0.0.1:8080"),
        ("http://127.0.0.1:8080/a", "127.0.0.1"),
        ("http://[::1]:8080/a", "[::1]:8080"),
        ("http://files.lan/a", "files.lan:80"),
    ],
)
def test_the_operator_may_allow_a_host(url: str, allowed: str) -> None:
    assert target_of(url, {allowed}).trusted


def test_another_port_of_an_allowed_host_is_not_allowed() -> None:
    with pytest.raises(MediaError):
        target_of("http://127.0.0.1:8081/a", {"127.0.0.1:8080"})


def test_one_private_address_among_public_ones_is_enough_to_refuse_a_name() -> None:
    target = target_of("http://example.org/a.png", ())
    with pytest.raises(MediaError) as caught:
        check_addresses(target, ["1.1.1.1", "10.0.0.1"])
    assert caught.value.code == "media-url-private"


PICTURE = Wanted(limit=10_485_760)


def seen(status: int = 200, **headers: str) -> Seen:
    told = {"content_type": "image/png", "content_length": "100", **headers}
    return Seen(status=status, headers={name.replace("_", "-"): text for name, text in told.items() if text})


@pytest.mark.parametrize(
    ("answer", "code", "word"),
    [
        (seen(404), "media-url-answer", "404"),
        (seen(206), "media-url-answer", "206"),
        (seen(content_type=""), "media-url-type", "what it is"),
        (seen(content_type="text/html; charset=utf-8"), "media-url-type", "text/html"),
        (seen(content_type="image/gif"), "media-url-type", "image/gif"),
        (seen(content_length=""), "media-url-length", "Content-Length"),
        (seen(content_length="-1"), "media-url-length", "Content-Length"),
        (seen(content_length="0"), "media-empty", "empty"),
        (seen(content_length="10485761"), "media-too-large", "10,485,761"),
    ],
)
def test_what_the_vendor_would_not_take_is_refused(answer: Seen, code: str, word: str) -> None:
    with pytest.raises(MediaError) as caught:
        check_seen("https://example.org/a.png", answer, PICTURE)
    assert (caught.value.code, word in caught.value.message) == (code, True)


def test_a_picture_with_type_and_length_passes() -> None:
    check_seen("https://x.org/a", seen(content_type="Image/JPEG; q=1", content_length="10485760"), PICTURE)


def test_a_message_shows_neither_the_query_nor_the_user_of_a_url() -> None:
    assert shortened("https://me:word@x.org/a.png?Signature=abc#f") == "'https://x.org/a.png'"
