"""File names to Content-Type values, by extension. A fixed table first, so that every machine gives the same answer.

The system's own /etc/mime.types is left out on purpose. Text is declared as UTF-8, which is what tools write today; an
HTML page in another encoding needs a `--header` rule, since the field wins over the page's own `<meta charset>`.
"""

from __future__ import annotations

import mimetypes
from typing import NamedTuple


class ContentType(NamedTuple):
    """The field's value, and whether the bytes are of a kind that shrinks, so that siblings make sense."""

    value: bytes
    compressible: bool


_OUR_TYPES = {
    ".avif": "image/avif",
    ".br": "application/x-brotli",
    ".css": "text/css",
    ".csv": "text/csv",
    ".epub": "application/epub+zip",
    ".flac": "audio/flac",
    ".geojson": "application/geo+json",
    ".glb": "model/gltf-binary",
    ".gltf": "model/gltf+json",
    ".gz": "application/gzip",
    ".htm": "text/html",
    ".html": "text/html",
    ".ics": "text/calendar",
    ".ico": "image/vnd.microsoft.icon",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".js": "text/javascript",
    ".json": "application/json",
    ".jsonld": "application/ld+json",
    ".jxl": "image/jxl",
    ".log": "text/plain",
    ".m3u8": "application/vnd.apple.mpegurl",
    ".m4a": "audio/mp4",
    ".m4v": "video/mp4",
    ".map": "application/json",
    ".md": "text/markdown",
    ".mjs": "text/javascript",
    ".mkv": "video/matroska",
    ".mov": "video/quicktime",
    ".mp3": "audio/mpeg",
    ".mp4": "video/mp4",
    ".mpd": "application/dash+xml",
    ".oga": "audio/ogg",
    ".ogg": "audio/ogg",
    ".ogv": "video/ogg",
    ".opus": "audio/ogg",
    ".otf": "font/otf",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".rss": "application/rss+xml",
    ".atom": "application/atom+xml",
    ".svg": "image/svg+xml",
    ".tar": "application/x-tar",
    ".toml": "application/toml",
    ".ttf": "font/ttf",
    ".txt": "text/plain",
    ".vtt": "text/vtt",
    ".wasm": "application/wasm",
    ".wav": "audio/wav",
    ".weba": "audio/webm",
    ".webm": "video/webm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".xhtml": "application/xhtml+xml",
    ".xml": "application/xml",
    ".xz": "application/x-xz",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".zip": "application/zip",
    ".zst": "application/zstd",
}

_COMPRESSIBLE = frozenset(
    (
        "application/json",
        "application/rtf",
        "application/toml",
        "application/vnd.apple.mpegurl",
        "application/wasm",
        "application/x-sh",
        "application/x-tar",
        "application/xml",
        "application/yaml",
        "font/otf",
        "font/ttf",
        "image/bmp",
        "image/vnd.microsoft.icon",
        "model/gltf-binary",
    )
)


def _content_type(media_type: str) -> ContentType:
    is_text = media_type.startswith("text/")
    compressible = is_text or media_type in _COMPRESSIBLE or media_type.endswith(("+xml", "+json"))
    value = media_type + "; charset=utf-8" if is_text else media_type
    return ContentType(value.encode("ascii"), compressible)


_UNKNOWN = _content_type("application/octet-stream")
_BY_EXTENSION = {
    extension.encode("ascii"): _content_type(media_type)
    for extension, media_type in {**mimetypes.MimeTypes(filenames=()).types_map[True], **_OUR_TYPES}.items()
}


def content_type_of(path: bytes) -> ContentType:
    """The type that the last name of `path` tells, `application/octet-stream` where it tells nothing."""
    dot = path.rfind(b".")
    if dot < 0:
        return _UNKNOWN
    extension = path[dot:]
    return _BY_EXTENSION.get(extension) or _BY_EXTENSION.get(extension.lower(), _UNKNOWN)
