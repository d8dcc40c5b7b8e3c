"""Open WebUI's own router of images, with its factory settings. What it imports of the rest of Open WebUI is replaced:
the database that has the settings, the store of files and the permissions.
"""

import asyncio
import base64
import importlib
import importlib.machinery
import os
import sys
import types
from pathlib import Path

import aiohttp
from reporting import KEY, PNG, PROMPT, URL, attempt

EXTRACTED = Path(sys.prefix) / "extracted"
CHOSEN = {
    "image_generation.engine": "openai",
    "image_generation.model": "",
    "image_generation.size": "512x512",
    "image_generation.steps": 50,
    "image_generation.openai.api_base_url": f"{URL}/v1",
    "image_generation.openai.api_key": KEY,
    "image_generation.openai.api_version": "",
    "image_generation.openai.params": {},
    "image_generation.automatic1111.base_url": URL,
    "image_generation.automatic1111.api_auth": f"user:{KEY}",
    "image_generation.automatic1111.api_params": {},
    "images.edit.engine": "openai",
    "images.edit.model": "",
    "images.edit.size": "",
    "images.edit.openai.api_base_url": f"{URL}/v1",
    "images.edit.openai.api_key": KEY,
    "images.edit.openai.api_version": "",
}
stored = []


class Settings:
    """In place of the table of settings."""

    @staticmethod
    async def get_many(*keys):
        return {key: CHOSEN.get(key) for key in keys}

    @staticmethod
    async def upsert(values):
        CHOSEN.update(values)


async def store(request, file, metadata, process, user):
    stored.append(await file.read())
    return types.SimpleNamespace(id="1", meta={}, filename=file.filename)


sessions = []


async def open_session():
    if not sessions:
        sessions.append(aiohttp.ClientSession())
    return sessions[0]


REPLACED = {
    "config": {
        "CACHE_DIR": Path(os.environ.get("TMPDIR", "/tmp")) / "nag-open-webui",
        "ENABLE_OPENAI_IMAGE_EDIT_NORMALIZATION": True,
        "IMAGE_AUTO_SIZE_MODELS_REGEX_PATTERN": "^gpt-image",
        "IMAGE_URL_RESPONSE_MODELS_REGEX_PATTERN": "^gpt-image",
    },
    "constants": {"ERROR_MESSAGES": types.SimpleNamespace(DEFAULT=lambda error, prefix="": f"{prefix} {error}")},
    "env": {
        "AIOHTTP_CLIENT_ALLOW_REDIRECTS": False,
        "AIOHTTP_CLIENT_SESSION_SSL": True,
        "ENABLE_FORWARD_USER_INFO_HEADERS": False,
    },
    "models.config": {"Config": Settings},
    "retrieval.web.utils": {"validate_url": lambda url: True, "get_ssrf_safe_session": aiohttp.ClientSession},
    "routers.files": {"upload_file_handler": store},
    "utils.session_pool": {"get_session": open_session},
}


class Replacement(types.ModuleType):
    """Has what REPLACED gives it, and nothing of use under any other name."""

    __path__ = ()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__init__": lambda self, *args, **kwargs: None})


class Finder:
    """Finds replacements of all modules of Open WebUI but the router."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if not f"{name}.".startswith("open_webui."):
            return None
        if name == "open_webui.routers.images":
            file = EXTRACTED / "open_webui" / "routers" / "images.py"
            return importlib.machinery.ModuleSpec(
                name, importlib.machinery.SourceFileLoader(name, str(file)), origin=str(file)
            )
        return importlib.machinery.ModuleSpec(name, Finder, is_package=True)

    @staticmethod
    def create_module(spec):
        module = Replacement(spec.name)
        vars(module).update(REPLACED.get(spec.name.removeprefix("open_webui."), {}))
        return module

    @staticmethod
    def exec_module(module):
        pass


sys.meta_path.insert(0, Finder)

images = importlib.import_module("open_webui.routers.images")

app = types.SimpleNamespace(url_path_for=lambda name, **fields: "/api/v1/files/1/content")
REQUEST = types.SimpleNamespace(app=app)
USER = types.SimpleNamespace(id="1", role="user")


def run(coroutine):
    async def with_session():
        try:
            return await coroutine
        finally:
            while sessions:
                await sessions.pop().close()

    stored.clear()
    asyncio.run(with_session())
    return stored[0]


def generate(**fields):
    return run(images.image_generations(REQUEST, images.CreateImageForm(prompt=PROMPT, **fields), user=USER))


def edit(*files):
    urls = [f"data:image/png;base64,{base64.b64encode(file).decode()}" for file in files]
    form = images.EditImageForm(image=urls[0] if len(urls) == 1 else urls, prompt=PROMPT)
    return run(images.image_edits(REQUEST, form, user=USER))


attempt("engine openai", generate)
attempt("engine openai, edit", lambda: edit(PNG))
CHOSEN |= {"images.edit.model": "gpt-image-1", "image_generation.model": "gpt-image-1"}
attempt("engine openai, gpt-image-1", generate)
attempt("engine openai, gpt-image-1, edit of two images", lambda: edit(PNG, PNG))
CHOSEN |= {"image_generation.engine": "automatic1111"}
attempt("engine automatic1111, a negative prompt", lambda: generate(negative_prompt="red"))
