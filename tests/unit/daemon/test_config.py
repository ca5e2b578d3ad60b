"""The configuration: what is refused, in which words, and which source wins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gradwatch_contracts.errors import GradwatchError
from gradwatch_daemon.config import AGENT_ENV, KEYS, check_thresholds, load_config, split_host_port

ENV = {"HOME": "/home/ada", "XDG_RUNTIME_DIR": "/run/user/7", "PATH": "/bin"}


def _refused(flags: dict[str, Any], env: dict[str, str], cwd: Path) -> str:
    with pytest.raises(GradwatchError) as caught:
        load_config(flags, {**ENV, **env}, cwd)
    assert caught.value.code.slug == "config-invalid"
    return str(caught.value)


def _write(cwd: Path, text: str, name: str = "gradwatch.toml") -> Path:
    path = cwd / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("htp = '127.0.0.1:1'", ["unknown key 'htp'", "Did you mean http?"]),
        ("origins = {}", ["unknown key 'origins'"]),
        ("config = 'x'", ["unknown key 'config'"]),
        ("http = ", ["readable TOML"]),
        ("http = 9470", ["http (file ", "9470"]),
        ("http = 'localhost'", ["HOST:PORT", "'localhost'"]),
        ("http = '::1:9470'", ["HOST:PORT"]),
        ("http = '127.0.0.1:65536'", ["0 to 65535"]),
        ("profile = 'clasic'", ["Did you mean classic?", "profile (file "]),
        ("ingest = 'udp://127.0.0.1:1'", ["auto, tcp://127.0.0.1:PORT"]),
        ("ingest = 'tcp://*:9471'", ["an address such as"]),
        ("ingest = 'tcp://localhost:9471'", ["an address such as"]),
        ("ingest = 'tcp://127.0.0.1'", ["HOST:PORT"]),
        ("ingest = 'ipc://relative'", ["auto, tcp://127.0.0.1:PORT"]),
        ("data_dir = ''", ["data_dir (file "]),
        ("public_url = 'gpu7.lab'", ["public_url (file ", "http or https"]),
        ("public_url = 'ftp://gpu7.lab'", ["http or https"]),
        ("public_url = 'https://ada:pw@gpu7.lab'", ["without user and password"]),
        ("public_url = 'https://gpu7.lab/#/runs'", ["without ? and #"]),
        ("public_url = 'https://gpu7.lab:99999'", ["public_url (file "]),
        ("keep_days = 0", ["keep_days (file ", "greater than 0"]),
        ("keep_days = inf", ["keep_days (file ", "finite"]),
        ("keep_bytes = 'much'", ["keep_bytes (file ", "a size such as 500MB or 20GB", "'much'"]),
        ("keep_bytes = '-1GB'", ["keep_bytes (file ", "a size such as"]),
        ("data_dir = 5", ["a directory", "5"]),
        ("allowed_hosts = ['http://gpu7']", ["without scheme"]),
        ("allowed_hosts = ['*']", ["without scheme"]),
        ("allowed_hosts = 5", ["allowed_hosts (file "]),
        ("thresholds = 5", ["a table"]),
        ("[thresholds]\nkl-spike = 5", ["thresholds.kl-spike", "a table of numbers"]),
        ("[thresholds.kl-spike]\nlimit = 'high'", ["thresholds.kl-spike.limit (file ", "'high'"]),
        ("[thresholds.kl-spike]\nlimit = nan", ["finite", "kl-spike.limit"]),
        ("[thresholds.kl-spike]\nlimit = true", ["a number", "True"]),
    ],
)
def test_file_with_a_mistake_is_refused_in_words(tmp_path: Path, text: str, words: list[str]) -> None:
    """Which key, from where, what was expected, what came."""
    _write(tmp_path, text)

    said = _refused({}, {}, tmp_path)

    assert [word for word in words if word not in said] == [], said


def test_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    """As any other unreadable file."""
    (tmp_path / "gradwatch.toml").write_bytes(b"\xff")

    assert "readable TOML" in _refused({}, {}, tmp_path)


@pytest.mark.parametrize(("flags", "env"), [({"config": "no.toml"}, {}), ({}, {"GRADWATCH_CONFIG": "no.toml"})])
def test_file_named_but_absent_is_refused(tmp_path: Path, flags: dict[str, Any], env: dict[str, str]) -> None:
    """Whoever names a file means it; ./gradwatch.toml may be absent."""
    assert "no.toml" in _refused(flags, env, tmp_path)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("GRADWATCH_HTPP", "GRADWATCH_HTTP"),
        ("GRADWATCH_DATADIR", "GRADWATCH_DATA_DIR"),
        ("GRADWATCH_ALLOWED_HOST", "GRADWATCH_ALLOWED_HOSTS"),
        ("GRADWATCH_ENDPOIN", "GRADWATCH_ENDPOINT"),
    ],
)
def test_variable_unknown_names_the_nearest(tmp_path: Path, name: str, nearest: str) -> None:
    """A mistyped variable is not silently a default."""
    said = _refused({}, {name: "x"}, tmp_path)

    assert f"'{name}'" in said
    assert f"Did you mean {nearest}?" in said


@pytest.mark.parametrize("name", sorted(AGENT_ENV))
def test_variable_of_the_agent_is_no_mistake(tmp_path: Path, name: str) -> None:
    """One shell may start both."""
    assert load_config({}, {**ENV, name: "x"}, tmp_path) == load_config({}, ENV, tmp_path)


def test_flag_unknown_names_the_nearest(tmp_path: Path) -> None:
    """In the spelling of flags."""
    assert "Did you mean --data-dir?" in _refused({"data_dri": "x"}, {}, tmp_path)


@pytest.mark.parametrize("text", ["x", "kl=1", "kl.limit", ".limit=1", "kl.=1", "kl.limit=high"])
def test_thresholds_as_text_malformed_are_refused(tmp_path: Path, text: str) -> None:
    """The form is KIND.NAME=NUMBER."""
    assert "thresholds" in _refused({}, {"GRADWATCH_THRESHOLDS": text}, tmp_path)


def test_data_directory_without_home_is_refused_with_the_flag_to_set(tmp_path: Path) -> None:
    """No guess into /tmp or the root."""
    with pytest.raises(GradwatchError, match="--data-dir"):
        load_config({}, {}, tmp_path)


def test_runtime_directory_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    """A Unix socket's path has 107 bytes; with tcp it does not matter."""
    long = {"GRADWATCH_RUNTIME_DIR": "/" + "r" * 120}

    assert "107 bytes" in _refused({}, long, tmp_path)
    load_config({"ingest": "tcp://127.0.0.1:0"}, {**ENV, **long}, tmp_path)


def test_nothing_given_is_the_defaults(tmp_path: Path) -> None:
    """Loopback HTTP, ipc, XDG directories, and each key says that it is a default."""
    config = load_config({}, ENV, tmp_path)

    assert config.model_dump() == {
        "http": "127.0.0.1:9470",
        "ingest": "auto",
        "data_dir": Path("/home/ada/.local/share/gradwatch"),
        "runtime_dir": Path("/run/user/7/gradwatch"),
        "profile": "default",
        "keep_days": None,
        "keep_bytes": None,
        "ack": "committed",
        "tls_cert": None,
        "tls_key": None,
        "insecure_http_beyond_loopback": False,
        "allowed_hosts": ("127.0.0.1", "::1", "localhost"),
        "thresholds": {},
        "escalation": {},
        "actions": {},
        "notify": (),
        "public_url": "",
    }
    assert config.origins == dict.fromkeys(KEYS, "default")


@pytest.mark.parametrize(("xdg", "expected"), [("/data", "/data/gradwatch"), ("rel", "/home/ada/.local/share/gradwatch")])
def test_data_directory_follows_xdg_when_absolute(tmp_path: Path, xdg: str, expected: str) -> None:
    """The specification has relative ones ignored."""
    assert load_config({}, {**ENV, "XDG_DATA_HOME": xdg}, tmp_path).data_dir == Path(expected)


SOURCES = {
    "http": ("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"),
    "ingest": ("tcp://127.0.0.1:1", "ipc:///x", "tcp://[::1]:0"),
    "data_dir": ("/a", "/b", "/c"),
    "runtime_dir": ("/a", "/b", "/c"),
    "profile": ("classic", "default", "classic"),
    "keep_days": ("1.0", "2.5", "3.0"),
    "keep_bytes": ("1000", "2000", "3000"),
    "ack": ("synced", "committed", "synced"),
    "insecure_http_beyond_loopback": ("True", "False", "True"),
    "allowed_hosts": ("a", "b", "c"),
    "public_url": ("http://a", "https://b:1", "https://c/watch"),
    "notify_secret": ("a", "b", "c"),
    "thresholds": ("kl.limit=1", "kl.limit=2", "kl.limit=3"),
}


def test_sources_of_the_test_cover_every_key() -> None:
    """A new key joins the test of precedence; tables of tables stand in the file, `notify` has tests of its own."""
    assert SOURCES.keys() | {"tls_cert", "tls_key", "escalation", "actions", "notify"} == set(KEYS)


@pytest.mark.parametrize("http", ["0.0.0.0:9470", "[::]:9470", "10.0.0.7:1", "gpu7.lab:9470"])
def test_http_beyond_loopback_without_tls_is_refused_naming_each_way_out(tmp_path: Path, http: str) -> None:
    """Nobody opens the token to a network by accident: TLS, a tunnel, or a flag that says what it does."""
    said = _refused({"http": http}, {}, tmp_path)

    missing = [way for way in ("--tls-cert", "--tls-key", "ssh -L", "--insecure-http-beyond-loopback") if way not in said]
    assert missing == [], said
    assert load_config({"http": http, "insecure_http_beyond_loopback": True}, ENV, tmp_path).http == http


@pytest.mark.parametrize(
    ("ingest", "encrypted"),
    [
        ("auto", False),
        ("ipc:///x", False),
        ("tcp://127.0.0.1:1", False),
        ("tcp://[::1]:1", False),
        ("tcp://0.0.0.0:1", True),
        ("tcp://10.0.0.1:1", True),
        ("tcp://[::]:1", True),
    ],
)
def test_ingest_that_leaves_this_machine_is_encrypted(tmp_path: Path, ingest: str, encrypted: bool) -> None:
    """There is no flag to do without."""
    assert load_config({"ingest": ingest}, ENV, tmp_path).encrypted is encrypted


def test_tls_half_given_or_absent_is_refused_and_whole_opens_the_address(tmp_path: Path) -> None:
    """A certificate without its key encrypts nothing."""
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_text("x")
    assert "--tls-key" in _refused({"tls_cert": "cert.pem"}, {}, tmp_path)
    assert "--tls-cert" in _refused({}, {"GRADWATCH_TLS_KEY": "key.pem"}, tmp_path)
    assert "a file that exists" in _refused({"tls_cert": "no.pem", "tls_key": "key.pem"}, {}, tmp_path)

    _write(tmp_path, "tls_cert = 'cert.pem'")
    config = load_config({"http": "0.0.0.0:1", "tls_key": "key.pem"}, ENV, tmp_path)

    assert (config.tls_cert, config.tls_key) == (tmp_path / "cert.pem", tmp_path / "key.pem")
    assert config.origins["tls_cert"].startswith("file ")


@pytest.mark.parametrize("key", sorted(SOURCES))
def test_key_is_taken_from_flag_then_variable_then_file(tmp_path: Path, key: str) -> None:
    """And says so."""
    in_file, in_env, in_flag = SOURCES[key]
    text = "[thresholds.kl]\nlimit = 1" if key == "thresholds" else f"{key} = {in_file!r}"
    path = _write(tmp_path, text)
    variable = f"GRADWATCH_{key.upper()}"
    env = {**ENV, variable: in_env}

    by_file = load_config({}, {**ENV, variable: ""}, tmp_path)
    by_env = load_config({key: None}, env, tmp_path)
    by_flag = load_config({key: in_flag}, env, tmp_path)

    found = [getattr(config, key) for config in (by_file, by_env, by_flag)]
    if key == "allowed_hosts":
        found = [value[-1] for value in found]
    if key == "thresholds":
        found = [f"kl.limit={value['kl']['limit']:g}" for value in found]
    assert [str(value) for value in found] == [in_file, in_env, in_flag]
    assert by_file.origins[key] == f"file {path}"
    assert by_env.origins[key] == f"variable {variable}"
    assert by_flag.origins[key] == f"flag --{key.replace('_', '-')}"


def test_thresholds_of_several_sources_are_laid_over_each_other(tmp_path: Path) -> None:
    """One number on the command line does not throw away the file's others; a key may have dots of its own."""
    _write(tmp_path, '[thresholds.kl]\nlimit = 1\n"limit.k3" = 2\n[thresholds.ev]\nlow = -0.5')

    config = load_config({"thresholds": {"kl": {"limit": 4}}}, {**ENV, "GRADWATCH_THRESHOLDS": "kl.limit.k3=3"}, tmp_path)

    assert config.thresholds == {"kl": {"limit": 4.0, "limit.k3": 3.0}, "ev": {"low": -0.5}}
    assert config.origins["thresholds.kl.limit"] == "flag --thresholds"
    assert config.origins["thresholds.kl.limit.k3"] == "variable GRADWATCH_THRESHOLDS"
    assert config.origins["thresholds.ev.low"].startswith("file ")


def test_directories_are_relative_to_who_named_them(tmp_path: Path) -> None:
    """A file's to the file, a variable's to the working directory; ~ is the home of the environment given."""
    (tmp_path / "etc").mkdir()
    _write(tmp_path / "etc", "data_dir = 'runs'\nruntime_dir = '~/run'", "g.toml")

    config = load_config({"config": "etc/g.toml"}, ENV, tmp_path)
    by_env = load_config({"config": "etc/g.toml"}, {**ENV, "GRADWATCH_DATA_DIR": "runs"}, tmp_path)

    assert config.data_dir == tmp_path / "etc" / "runs"
    assert config.runtime_dir == Path("/home/ada/run")
    assert by_env.data_dir == tmp_path / "runs"


def test_file_is_the_flags_then_the_variables_then_the_directorys(tmp_path: Path) -> None:
    """Only one file is read."""
    for name in ("gradwatch.toml", "env.toml", "flag.toml"):
        _write(tmp_path, f"allowed_hosts = [{name!r}]", name)
    env = {**ENV, "GRADWATCH_CONFIG": "env.toml"}

    found = [load_config(*args, tmp_path).allowed_hosts[-1] for args in (({}, ENV), ({}, env), ({"config": "flag.toml"}, env))]

    assert found == ["gradwatch.toml", "env.toml", "flag.toml"]


def test_allowed_hosts_are_added_to_loopback(tmp_path: Path) -> None:
    """Naming one host must not lock out the machine itself."""
    config = load_config({"allowed_hosts": ["gpu7.lab:9470"]}, ENV, tmp_path)

    assert config.allowed_hosts == ("127.0.0.1", "::1", "localhost", "gpu7.lab:9470")


def test_thresholds_unknown_name_the_nearest() -> None:
    """Kind and number, each against the catalogue."""
    known = {"kl-spike": ("limit", "clear"), "nonfinite": ()}

    check_thresholds({"kl-spike": {"limit": 1.0}}, known)
    with pytest.raises(GradwatchError, match="Did you mean kl-spike"):
        check_thresholds({"kl-spik": {"limit": 1.0}}, known)
    with pytest.raises(GradwatchError, match="Did you mean limit") as caught:
        check_thresholds({"kl-spike": {"limt": 1.0}}, known)
    assert caught.value.where == "thresholds.kl-spike"


@pytest.mark.parametrize(
    ("text", "expected"), [("127.0.0.1:0", ("127.0.0.1", 0)), ("[::1]:9470", ("::1", 9470)), ("gpu7.lab:80", ("gpu7.lab", 80))]
)
def test_host_and_port_are_split(text: str, expected: tuple[str, int]) -> None:
    """Brackets belong to the writing, not to the address."""
    assert split_host_port(text) == expected


@pytest.mark.parametrize(
    "text", ["", ":80", "a", "a:", "a:x", "a:-1", "a:٣", "::1:80", "[::1]", "[a]:1", "a b:1", "http://a:1"]
)
def test_host_and_port_malformed_are_refused(text: str) -> None:
    """Digits are ASCII; an IPv6 address needs brackets."""
    with pytest.raises(ValueError, match="expected"):
        split_host_port(text)


@pytest.mark.parametrize(("text", "size"), [("500MB", 500 * 10**6), ("20 gb", 20 * 10**9), ("1.5T", 15 * 10**11)])
def test_size_to_keep_is_read_in_decimal_units(tmp_path: Path, text: str, size: int) -> None:
    """As disks are sold."""
    assert load_config({"keep_bytes": text}, ENV, tmp_path).keep_bytes == size
