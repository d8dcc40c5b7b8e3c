"""ASGI middleware; `app.api.server` adds each to the app, the outermost last."""
