"""GET /docs: Swagger UI over our own OpenAPI document, its files from here: no other host."""

from __future__ import annotations

from functools import cache
from importlib import resources

from fastapi import APIRouter, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.exceptions import HTTPException

router = APIRouter(include_in_schema=False)

FILES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}


@router.get("/docs")
async def docs(request: Request) -> Response:
    script, style, icon = (f"docs/{name}" for name in FILES)
    return get_swagger_ui_html(
        openapi_url="openapi.json",
        title=f"{request.app.title}: its HTTP interface",
        swagger_js_url=script,
        swagger_css_url=style,
        swagger_favicon_url=icon,
    )


@router.get("/docs/{name}")
async def file(name: str) -> Response:
    if name not in FILES:
        raise HTTPException(404)
    headers = {"Cache-Control": "max-age=86400"}
    return Response(_read(name), headers=headers, media_type=FILES[name])


@cache
def _read(name: str) -> bytes:
    return resources.files("fastapi_swagger").joinpath("resources", name).read_bytes()
