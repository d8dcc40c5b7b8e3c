"""`nag-server keys new` and `keys list`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pydantic import ValidationError

from app.auth import ApiKey, KeysError, Scope
from app.auth.api_key import LIMITS, digest, new_secret
from app.auth.keys_file import add_key, format_key, read_keys
from app.settings import Settings

__all__ = ["add_arguments", "keys"]


def keys(arguments: argparse.Namespace, settings: Settings) -> None:
    """Raises KeysError, OSError."""
    path = arguments.file or settings.api_keys_file
    if arguments.action == "list":
        known = settings.api_keys + (() if path is None else read_keys(path))
        for key in known:
            limits = (f"{name} {most}" for name in LIMITS if (most := getattr(key, name)) is not None)
            strict = () if key.strict is None else (f"strict {str(key.strict).lower()}",)
            print(key.id, key.tenant, ",".join(sorted(key.scopes)), *limits, *strict, sep="\t")
        return
    secret = new_secret()
    key = _key(arguments, secret)
    if path is None:
        print(f"Add this to the file that NAG_API_KEYS_FILE names:\n\n{format_key(key)}", file=sys.stderr)
    else:
        add_key(path, key)
        print(f"{key.id} stands in {path}. The key itself is shown once:", file=sys.stderr)
    print(secret)  # alone on stdout, for KEY=$(nag-server keys new …)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True)
    new = actions.add_parser("new", help="make a key, print it once, and add its hash to the file")
    new.add_argument("id", metavar="ID", help="its name in the file, the logs and the errors")
    new.add_argument("--tenant", help="whose jobs it sees; absent: ID")
    scopes = f"comma-separated scopes, of {', '.join(Scope)}; default: %(default)s"
    new.add_argument("--scopes", default="generate,read", help=scopes)
    for name, meaning in LIMITS.items():
        new.add_argument(f"--{name.replace('_', '-')}", type=int, metavar="N", help=f"most {meaning}")
    new.add_argument(
        "--lenient", action="store_true",
        help="leave out what a model cannot honour, with a warning, if a request does not say strict",
    )  # fmt: skip
    for action in (new, actions.add_parser("list", help="ids, tenants, scopes and limits")):
        action.add_argument("--file", type=Path, help="absent: what NAG_API_KEYS_FILE names")


def _key(arguments: argparse.Namespace, secret: str) -> ApiKey:
    limits = {name: getattr(arguments, name) for name in LIMITS}
    scopes = list(filter(None, map(str.strip, arguments.scopes.split(","))))
    fields = {"id": arguments.id, "tenant": arguments.tenant or arguments.id, "scopes": scopes, **limits}
    if arguments.lenient:
        fields["strict"] = False
    try:
        return ApiKey.model_validate(fields | {"sha256": digest(secret)})
    except ValidationError as exc:
        error = exc.errors(include_url=False, include_input=False)[0]
        raise KeysError(f"{error['loc'][0]}: {error['msg'].replace('Input should', 'must')}") from None
