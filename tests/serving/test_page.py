"""`/` and `/docs` are whole without any other host."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from serving.processes.embedded import Embedded
from tests.servers import http_service, settings_for, until


def loaded_by(page: str) -> list[str]:
    """What a browser fetches for a page, and the document that Swagger UI asks for."""
    return re.findall(r"""(?:src|<link[^>]* href)=["']([^"']+)|url: ['"]([^'"]+)""", page)


def test_the_documents_page_loads_its_files_from_here(http: httpx.Client):
    """Script, style, icon and the OpenAPI document, each answered by this service."""
    page = http.get("/docs")
    fetched = [one or other for one, other in loaded_by(page.text)]
    assert len(fetched) == 4
    for path in fetched:
        answer = http.get(f"/{path}")
        assert not path.startswith(("http", "//"))
        assert answer.status_code == 200
        assert len(answer.content) > 500
    assert http.get("/docs/nothing.js").status_code == 404


def test_the_first_page_says_what_runs(http: httpx.Client):
    """What this is, its policies with version and snapshot, and where to go; nothing is loaded."""
    page = http.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "Ready: it decides and logs" in page.text
    assert "<td>default<td>linear<td>version 1<td>none yet<td>0<td>none" in page.text
    assert not loaded_by(page.text)
    for path in re.findall(r'href="([^"]+)"', page.text):
        assert http.get(f"/{path}").status_code == 200


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_no_page_names_another_host(http: httpx.Client, path: str):
    """A machine without internet shows them whole."""
    assert "://" not in http.get(path).text


def test_the_first_page_says_why_it_is_not_ready(tmp_path: Path):
    """A page that is up while the store is down is when somebody looks at it."""
    server = Embedded(tmp_path / "valkey", fsync="everysec", max_memory_mb=64)
    server.start()
    try:
        with http_service(settings_for(server.url, tmp_path)) as http:
            server.stop()
            until(lambda: "Not ready: " in http.get("/").text, "the page says so")
            page = http.get("/")
            assert page.status_code == 200
            assert "Not ready: Redis can&#x27;t be reached" in page.text
    finally:
        server.stop()
