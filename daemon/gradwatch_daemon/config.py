"""The configuration: defaults < TOML file < GRADWATCH_* < flags, each value with where it came from.

An unknown key is an error that names the nearest one, wherever it stands: a mistyped threshold must not be a default.
Not `from __future__ import annotations`: pydantic reads the types at run time.
"""

import ipaddress
import math
import os
import re
import sys
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_serializer, field_validator

from gradwatch_contracts.connection import runtime_dir, state_dir
from gradwatch_contracts.errors import GradwatchError
from gradwatch_contracts.names import nearest
from gradwatch_daemon.notify.target import Target, check_public_url, read_targets

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE_NAME = "gradwatch.toml"
HTTP_DEFAULT = "127.0.0.1:9470"
LOOPBACK_HOSTS = ("127.0.0.1", "::1", "localhost")
PREFIX = "GRADWATCH_"
AGENT_ENV = frozenset(
    PREFIX + name for name in ("ENDPOINT", "URL", "RUN_ID", "LEVEL", "MODE", "STRICT", "LAUNCH_ID", "TOKEN", "SPOOL_DIR")
)
"""Variables of the agent and the command line: allowed in the daemon's environment, of no meaning to it."""

IPC_PATH_BYTES_MAX = 107
"""sun_path of a Unix socket, less its final zero."""


class RaiseConfig(BaseModel):
    """What a rule asks for when it fires; see `escalate.policy.Response`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    level: Literal["off", "minimal", "normal", "debug"] = "debug"
    updates: int = Field(default=5, ge=1, le=500)
    extension: int = Field(default=5, ge=0, le=500)
    cooldown: int = Field(default=0, ge=0, le=1_000_000)
    share: float = Field(default=0.1, gt=0, le=1)


class ActionConfig(BaseModel):
    """When the daemon asks for a verb by itself; see `escalate.actions.Action`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = False
    severity: Literal["info", "warning", "critical"] = "critical"
    kinds: tuple[str, ...] = ()


class Config(BaseModel):
    """What `gradwatch serve` runs with. `origins` says for each key where its value is from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    http: str = Field(default=HTTP_DEFAULT, description="Address of the HTTP API, HOST:PORT; port 0 takes a free one")
    ingest: str = Field(
        default="auto",
        description="auto: ipc in the runtime directory; ipc:///PATH in a private one; tcp://ADDRESS:PORT, CURVE off loopback",
    )
    data_dir: Path = Field(description="Where runs are stored")
    runtime_dir: Path = Field(description="Where connection.json and the ipc socket lie")
    profile: Literal["default", "classic"] = Field(default="default", description="Which thresholds and votes detectors use")
    keep_days: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="Age at which rows are thinned and files go; never by default"
    )
    keep_bytes: int | None = Field(
        default=None, gt=0, description="Size, as 500MB or 20GB, beyond which the oldest rows are thinned, files go"
    )
    ack: Literal["committed", "synced"] = Field(
        default="committed", description="What an ack promises: it survives the end of the process, or of the machine"
    )
    tls_cert: Path | None = Field(default=None, description="PEM certificate chain of the HTTP API; with tls_key it is https")
    tls_key: Path | None = Field(default=None, description="PEM key of tls_cert")
    insecure_http_beyond_loopback: bool = Field(
        default=False, description="Serve HTTP without TLS on an address others can reach: tokens travel readable"
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=(), validate_default=True, description="Names accepted in the Host header, besides loopback"
    )
    thresholds: dict[str, dict[str, float]] = Field(
        default_factory=dict, description="Detector kind → threshold → number, in place of the profile's"
    )
    escalation: dict[str, RaiseConfig] = Field(
        default_factory=dict, description="Detector kind, or default → what it raises when it fires (file only)"
    )
    actions: dict[str, ActionConfig] = Field(
        default_factory=dict, description="Verb → when the daemon asks a trainer for it by itself (file only)"
    )
    notify: tuple[Target, ...] = Field(default=(), description="Who is told: tables [[notify]], or words KIND+URL")
    public_url: Annotated[str, AfterValidator(check_public_url)] = Field(default="", description="Where links lead")
    notify_secret: str = Field(default="", repr=False, exclude=True, description="Of webhooks without a secret of their own")
    origins: dict[str, str] = Field(default_factory=dict, exclude=True, description="Key → default, file, variable or flag")

    @field_serializer("notify")
    def _show_targets(self, value: tuple[Target, ...]) -> tuple[str, ...]:
        """Without secrets, of which an address may hold one."""
        return tuple(f"{target.name}: {target.kind} {target.address} from {target.severity.value}" for target in value)

    @field_validator("http")
    @classmethod
    def _check_http(cls, value: str) -> str:
        split_host_port(value)
        return value

    @field_validator("ingest")
    @classmethod
    def _check_ingest(cls, value: str) -> str:
        if value == "auto":
            return value
        scheme, separator, rest = value.partition("://")
        if separator and scheme == "ipc" and rest.startswith("/"):
            return value
        if not separator or scheme != "tcp":
            raise ValueError("expected auto, tcp://127.0.0.1:PORT or ipc:///PATH")
        host, _ = split_host_port(rest)
        try:
            ipaddress.ip_address(host)
        except ValueError:
            raise ValueError(
                "expected an address such as tcp://127.0.0.1:9471, or tcp://0.0.0.0:9471 for registered keys of other machines"
            ) from None
        return value

    @field_validator("keep_bytes", mode="before")
    @classmethod
    def _read_size(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", value.strip().upper())
        if found is None:
            raise ValueError("expected a size such as 500MB or 20GB")
        return int(float(found[1]) * 1000 ** " KMGT".index(found[2] or " "))

    @property
    def encrypted(self) -> bool:
        """Whether ingest is CURVE: always where it leaves this machine."""
        return self.ingest.startswith("tcp://") and not _is_loopback_address(split_host_port(self.ingest[6:])[0])

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _read_hosts(cls, value: Any) -> Any:
        if isinstance(value, str):
            return [word.strip() for word in value.split(",") if word.strip()]
        return value

    @field_validator("allowed_hosts")
    @classmethod
    def _add_loopback(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for host in value:
            if not host or any(c.isspace() or c in "/*@," for c in host):
                raise ValueError(f"expected names such as gpu7.lab or gpu7.lab:9470, without scheme or *, got {host!r}")
        return tuple(dict.fromkeys((*LOOPBACK_HOSTS, *value)))

    @field_validator("thresholds")
    @classmethod
    def _check_numbers(cls, value: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        for kind, numbers in value.items():
            for name, number in numbers.items():
                if not math.isfinite(number):
                    raise ValueError(f"expected a finite number for {kind}.{name}")
        return value


KEYS = tuple(name for name in Config.model_fields if name != "origins")
"""What a file may hold and a variable or flag may set."""


def split_host_port(text: str) -> tuple[str, int]:
    """HOST:PORT or [V6]:PORT as host (without brackets) and port.

    Raises:
        ValueError: saying what was expected.
    """
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    bare = host[1:-1] if bracketed else host
    if not colon or not bare or bracketed != (":" in bare) or any(c.isspace() or c in "/[]@" for c in bare):
        raise ValueError("expected HOST:PORT such as 127.0.0.1:9470 or [::1]:9470")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
        raise ValueError(f"expected a port from 0 to 65535, got {port!r}")
    return bare, int(port)


def is_loopback(host: str) -> bool:
    """Whether a host, as an address or by its usual names, is this machine alone."""
    return host in LOOPBACK_HOSTS or _is_loopback_address(host)


def _is_loopback_address(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def load_config(flags: Mapping[str, Any], env: Mapping[str, str], cwd: Path) -> Config:
    """The configuration from a mapping of flags (None = not given; `config` names the file), environment and directory.

    Reads the file and nothing else. Relative directories are taken from `cwd`, in a file from the file's own directory.

    Raises:
        GradwatchError: `config-invalid`, saying which key, from where, what was expected, what came.
    """
    layers: list[tuple[dict[str, Any], str]] = []
    file = _file_of(flags, env, cwd)
    if file is not None:
        layers.append((_read_file(file), f"file {file}"))
    layers += [({key: env[PREFIX + key.upper()]}, f"variable {PREFIX}{key.upper()}") for key in _check_env(env)]
    given = {key: value for key, value in flags.items() if value is not None and key != "config"}
    _check_keys(given, KEYS, "flags", prefix="--")
    layers += [({key: value}, f"flag --{key.replace('_', '-')}") for key, value in given.items()]

    values: dict[str, Any] = {}
    origins = dict.fromkeys(KEYS, "default")
    for layer, origin in layers:
        for key, value in layer.items():
            _merge(values, origins, key, value, origin)
    home = env.get("HOME", "")
    for key, fallback in (("data_dir", state_dir(env)), ("runtime_dir", runtime_dir(env, _uid()))):
        base = file.parent if file is not None and origins[key].startswith("file ") else cwd
        values[key] = _directory(key, values.get(key, fallback), base, home, origins[key])
    for key in ("tls_cert", "tls_key"):
        if key in values:
            base = file.parent if file is not None and origins[key].startswith("file ") else cwd
            values[key] = base / _expand(str(values[key]), home)
    secret, origin = str(values.get("notify_secret", "")), origins["notify"]
    values["notify"] = read_targets(values.get("notify", ()), secret, origin)
    return _build(values, origins)


def _build(values: Mapping[str, Any], origins: dict[str, str]) -> Config:
    try:
        config = Config(**values, origins=origins)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        origin = origins.get(path, origins.get(str(first["loc"][0]), "default"))
        message = first["msg"].removeprefix("Value error, ").removeprefix("expected ").replace("Input should be", "").strip()
        hint = _nearest_choice(first)
        raise _invalid(f"{path} ({origin})", message, repr(first["input"])[:80], hint) from error
    socket = config.runtime_dir / "ingest.ipc"
    if config.ingest == "auto" and len(os.fsencode(socket)) > IPC_PATH_BYTES_MAX:
        expected = f"a path of at most {IPC_PATH_BYTES_MAX} bytes for its socket"
        raise _invalid(f"runtime_dir ({origins['runtime_dir']})", expected, f"{len(os.fsencode(socket))} bytes: {socket}")
    _check_exposure(config, origins)
    return config


def _check_exposure(config: Config, origins: Mapping[str, str]) -> None:
    """Whoever reads plain HTTP has the token: beyond loopback only with TLS, or by a flag nobody sets by accident."""
    for key in ("tls_cert", "tls_key"):
        path, other = getattr(config, key), "tls_key" if key == "tls_cert" else "tls_cert"
        if path is not None and not path.is_file():
            raise _invalid(f"{key} ({origins[key]})", "a file that exists", str(path))
        if path is not None and getattr(config, other) is None:
            raise _invalid(f"{key} ({origins[key]})", f"{other} beside it", "nothing", f"Add --{other.replace('_', '-')} FILE.")
    host, _ = split_host_port(config.http)
    if config.tls_cert is None and not config.insecure_http_beyond_loopback and not is_loopback(host):
        raise _invalid(
            f"http ({origins['http']})",
            "a loopback address such as 127.0.0.1:9470, since HTTP without TLS shows the token to the network",
            repr(config.http),
            "Give --tls-cert and --tls-key, or tunnel with ssh -L, or say --insecure-http-beyond-loopback.",
        )


def _nearest_choice(error: Any) -> str:
    given = error["input"]
    if error["type"] != "literal_error" or not isinstance(given, str):
        return ""
    hint = nearest(given, ("default", "classic"))
    return f"Did you mean {hint}?" if hint else ""


def check_thresholds(thresholds: Mapping[str, Mapping[str, float]], known: Mapping[str, Collection[str]]) -> None:
    """Check overrides against the catalogue: `known` is detector kind → names of its thresholds.

    Raises:
        GradwatchError: `config-invalid`, naming the nearest kind or threshold.
    """
    for kind, numbers in thresholds.items():
        _check_keys([kind], known, "thresholds")
        _check_keys(numbers, known[kind], f"thresholds.{kind}")


def check_kinds(config: Config, known: Collection[str]) -> None:
    """Check the kinds that escalations and actions name against the catalogue.

    Raises:
        GradwatchError: `config-invalid`, naming the nearest kind.
    """
    _check_keys(config.escalation, {*known, "default"}, "escalation")
    for verb, action in config.actions.items():
        _check_keys(action.kinds, known, f"actions.{verb}.kinds")


def _file_of(flags: Mapping[str, Any], env: Mapping[str, str], cwd: Path) -> Path | None:
    """The file named by flag or variable, which must exist; else ./gradwatch.toml if there is one."""
    named = flags.get("config") or env.get(PREFIX + "CONFIG")
    if named:
        path = cwd / _expand(str(named), env.get("HOME", ""))
        if not path.is_file():
            raise _invalid("--config" if flags.get("config") else PREFIX + "CONFIG", "a file that exists", str(path))
        return path
    path = cwd / FILE_NAME
    return path if path.is_file() else None


def _read_file(path: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _invalid(f"file {path}", "readable TOML", str(error)) from error
    _check_keys(document, KEYS, f"file {path}")
    return document


def _check_env(env: Mapping[str, str]) -> list[str]:
    """Keys that the environment sets; an empty variable sets nothing (compose writes `${NAME:-}`)."""
    own = {PREFIX + key.upper(): key for key in KEYS}
    known = own.keys() | AGENT_ENV | {PREFIX + "CONFIG"}
    _check_keys([name for name in env if name.startswith(PREFIX)], known, "environment")
    return [key for name, key in own.items() if env.get(name)]


def _check_keys(given: Iterable[str], known: Collection[str], where: str, prefix: str = "") -> None:
    for key in given:
        if key not in known:
            hint = nearest(key, known)
            shown = f"{prefix}{hint.replace('_', '-') if prefix else hint}" if hint else ""
            expected = f"one of {', '.join(sorted(known))}" if len(known) <= 40 else "a known key"
            raise _invalid(where, expected, f"the unknown key {key!r}", f"Did you mean {shown}?" if shown else "")


def _merge(values: dict[str, Any], origins: dict[str, str], key: str, value: Any, origin: str) -> None:
    """Put a value over what is there; thresholds are laid over each other number by number."""
    origins[key] = origin
    if key != "thresholds":
        values[key] = value
        return
    table = _threshold_table(value, origin)
    merged = values.setdefault(key, {})
    for kind, numbers in table.items():
        if not isinstance(numbers, Mapping):
            raise _invalid(f"thresholds.{kind} ({origin})", "a table of numbers", repr(numbers)[:80])
        for name, number in numbers.items():
            if isinstance(number, bool):
                raise _invalid(f"thresholds.{kind}.{name} ({origin})", "a number", repr(number))
            merged.setdefault(kind, {})[name] = number
            origins[f"{key}.{kind}.{name}"] = origin


def _threshold_table(value: Any, origin: str) -> Mapping[str, Any]:
    """A table as it is; from a variable or flag the text `kind.name=number,kind.name=number`."""
    if isinstance(value, Mapping):
        return value
    if not isinstance(value, str):
        raise _invalid(f"thresholds ({origin})", "a table", repr(value)[:80])
    table: dict[str, dict[str, str]] = {}
    for part in filter(None, (word.strip() for word in value.split(","))):
        path, equals, number = part.partition("=")
        kind, dot, name = path.strip().partition(".")
        if not (equals and dot and kind and name):
            raise _invalid(f"thresholds ({origin})", "KIND.NAME=NUMBER, with commas between", repr(part)[:80])
        table.setdefault(kind, {})[name] = number.strip()
    return table


def _directory(key: str, value: Any, base: Path, home: str, origin: str) -> Path:
    if not isinstance(value, (str, Path)) or not str(value) or "\0" in str(value):
        next_step = "" if value else f"Set --data-dir or {PREFIX}DATA_DIR: there is no HOME to put it under."
        raise _invalid(f"{key} ({origin})", "a directory", repr(value)[:80], next_step)
    return base / _expand(str(value), home)


def _expand(text: str, home: str) -> str:
    """`~/` from the environment given, not from that of this process."""
    return f"{home}{text[1:]}" if home and (text == "~" or text.startswith("~/")) else text


def _uid() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0


def _invalid(where: str, expected: str, got: str, next_step: str = "") -> GradwatchError:
    return GradwatchError("config-invalid", where=where, expected=expected, got=got, next_step=next_step)
