"""Image URLs: what can be put into a request, and what is refused before it costs a call."""

from __future__ import annotations

import pytest

from batchrun.errors import MediaError
from batchrun.media.url import SEEDS, check_data_picture, check_image_url


@pytest.mark.parametrize(
    "url",
    [
        "https://host/a.jpg",
        "HTTP://host:8080/a%20b.jpg?x=1#y",
        "https://[::1]/a.jpg",
        "https://例え.jp/漁船.jpg",
        "data:image/png;base64,iVBORw0KGgo=",
        "DATA:IMAGE/JPEG;BASE64,/9j/4AAQ",
        "data:image/gif;base64,R0lGODlh",
        "data:image/heic;base64,AAAA",
    ],
)
def test_taken(url: str) -> None:
    check_image_url(url)


@pytest.mark.parametrize(
    ("url", "code", "message"),
    [
        ("", "media-url", "'' is no http, https or data URL."),
        ("cats/1.jpg", "media-url", "'cats/1.jpg' is no http, https or data URL."),
        ("file:///etc/passwd", "media-url", "'file:///etc/passwd' is no http, https or data URL."),
        ("ftp://host/a.jpg", "media-url", "'ftp://host/a.jpg' is no http, https or data URL."),
        ("https:///a.jpg", "media-url", "'https:///a.jpg' is no http, https or data URL."),
        ("https://[broken/a.jpg", "media-url", "'https://[broken/a.jpg' is no http, https or data URL."),
        ("https://host/a b.jpg", "media-url", "'https://host/a b.jpg' contains a blank or an invisible character."),
        ("https://host/a\u202eb", "media-url", "'https://host/a\\u202eb' contains a blank or an invisible character."),
        ("data:text/html;base64,AAAA", "media-data-url", "'data:text/html;base64,AAAA' is no base64 image."),
        ("data:image/png,raw", "media-data-url", "'data:image/png,raw' is no base64 image."),
        ("data:image/png;base64,", "media-empty", "'data:image/png;base64,' is empty."),
        (
            "data:image/png;base64,iVBO*w0KGgo=",
            "media-data-url",
            "The base64 of 'data:image/png;base64,iVBO*w0KGgo=' is broken (Only base64 data is allowed).",
        ),
        (
            "data:image/png;base64,iVBORw0KGgo",
            "media-data-url",
            "The base64 of 'data:image/png;base64,iVBORw0KGgo' is broken (Incorrect padding).",
        ),
        (
            "data:image/jpeg;base64,iVBORw0KGgo=",
            "media-data-url",
            "'data:image/jpeg;base64,iVBORw0KGgo=' holds image/png.",
        ),
    ],
)
def test_refused(url: str, code: str, message: str) -> None:
    with pytest.raises(MediaError) as caught:
        check_image_url(url)
    assert (caught.value.code, caught.value.message, bool(caught.value.remedy)) == (code, message, True)


def test_a_data_url_over_the_limit_is_refused_by_its_length() -> None:
    with pytest.raises(MediaError) as caught:
        check_image_url("data:image/png;base64," + "!" * 10_485_761)
    assert caught.value.message == (
        "'data:image/png;base64,!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!…' has 10,485,761 characters as base64; "
        "the limit is 10,485,760."
    )


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("data:image/png;base64,AAAA", "unknown"),
        ("data:image/png;base64,R0lGODlh", "GIF"),  # not told to call it a GIF, as it wouldn't be taken then either
        ("data:image/png;base64,JVBERi0xLjc=", "PDF"),
        ("data:image/heic;base64,aGVsbG8gdGhlcmU=", "text"),
    ],
)
def test_a_data_url_that_holds_no_picture_is_refused_before_its_call(url: str, what: str) -> None:
    with pytest.raises(MediaError, match=f"is no picture that can be sent; its content is {what}") as caught:
        check_data_picture(url, SEEDS)
    assert caught.value.code == "media-format"
