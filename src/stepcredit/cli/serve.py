"""`stepcredit serve`: prints or starts the vLLM command of a reward model, teacher or judge."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepcredit.cli.options import repeated, settings_of
from stepcredit.cli.output import printable, say
from stepcredit.errors import SettingError, SignalError

if TYPE_CHECKING:
    from stepcredit.prm.serving.server_check import CheckSettings
    from stepcredit.prm.serving.server_process import ServerProcess
    from stepcredit.prm.serving.vllm_command import VLLMCommand

SAY_EVERY = 10.0
"""Seconds between two lines of progress, where no terminal shows them."""
SHOWN_LINES = 10
"""Lines of a server's output that are shown when it fails."""
START, FLAGS, CHECK = "Starting", "vLLM's flags", "Checking"


def _option(*names: str, about: str, panel: str | None = None, metavar: str | None = None) -> Any:
    return typer.Option(
        *names, help=about, rich_help_panel=panel, metavar=metavar, show_default=False
    )


Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="A name on the Hub, or a folder.", show_default=False)
]
Role = Annotated[
    str | None,
    _option("--as", about="prm, teacher or judge. Default: what MODEL is known as."),
]
ProtocolName = Annotated[
    str | None,
    _option("--protocol", about="Of a reward model. Default: that of MODEL.", metavar="NAME"),
]
ProtocolSet = Annotated[
    list[str],
    repeated("--set", "A field of the protocol.", "FIELD=VALUE"),
]
Port = Annotated[int, typer.Option(help="Port of the server.", rich_help_panel=FLAGS)]
Host = Annotated[
    str | None,
    _option("--host", about="Address at which it listens. Default: all.", panel=FLAGS),
]
ServedName = Annotated[
    str | None,
    _option("--served-name", about="The model's name on the server.", panel=FLAGS, metavar="NAME"),
]
Revision = Annotated[
    str | None, _option("--revision", about="Branch, tag or commit on the Hub.", panel=FLAGS)
]
MaxModelLen = Annotated[
    int | None,
    _option("--max-model-len", about="Most tokens of a request.", panel=FLAGS, metavar="N"),
]
Dtype = Annotated[str, typer.Option(help="Type of the weights.", rich_help_panel=FLAGS)]
MemoryShare = Annotated[
    float | None,
    _option(
        "--memory-share",
        about="Share of each GPU's memory. Default: 0.9; 0.85 for a teacher.",
        panel=FLAGS,
        metavar="SHARE",
    ),
]
TensorParallel = Annotated[
    int | None,
    _option(
        "--tensor-parallel",
        about="GPUs that hold the model together. Default: as many as it needs with 80 GB each.",
        panel=FLAGS,
        metavar="N",
    ),
]
DataParallel = Annotated[
    int, typer.Option(help="Copies of the model behind the address.", rich_help_panel=FLAGS)
]
Extra = Annotated[
    list[str],
    repeated(
        "--vllm", "A further argument of vLLM, such as --vllm=--enforce-eager.", "ARGUMENT", FLAGS
    ),
]
Start = Annotated[
    bool,
    typer.Option(
        "--start",
        help="Run the command here, wait until the server is healthy, check it, and keep it.",
        rich_help_panel=START,
        show_default=False,
    ),
]
Wait = Annotated[
    float,
    typer.Option(
        min=0, help="Seconds that the server has to become healthy.", rich_help_panel=START
    ),
]
Log = Annotated[
    Path | None,
    _option("--log", about="File for the server's output.", panel=START, metavar="FILE"),
]
Verify = Annotated[
    list[str],
    repeated("--verify", "Check the server that runs at URL, in place of printing.", "URL", CHECK),
]
Tokenizer = Annotated[
    str | None,
    _option(
        "--tokenizer",
        about="The model's tokenizer. Default: the one at MODEL.",
        panel=CHECK,
        metavar="PATH",
    ),
]
Local = Annotated[
    bool | None,
    typer.Option(
        "--local/--no-local",
        help="Load the model here and compare its scores. Default: if its weights are here.",
        rich_help_panel=CHECK,
        show_default=False,
    ),
]
Tolerance = Annotated[
    float, typer.Option(min=0, help="How far scores may differ.", rich_help_panel=CHECK)
]
ApiKeyEnv = Annotated[
    str | None,
    _option(
        "--api-key-env",
        about="Environment variable that holds the server's key.",
        panel=CHECK,
        metavar="NAME",
    ),
]


def serve_command(
    model: Model,
    *,
    role: Role = None,
    protocol: ProtocolName = None,
    settings: ProtocolSet,
    port: Port = 8000,
    host: Host = None,
    served_name: ServedName = None,
    revision: Revision = None,
    max_model_len: MaxModelLen = None,
    dtype: Dtype = "bfloat16",
    memory_share: MemoryShare = None,
    tensor_parallel: TensorParallel = None,
    data_parallel: DataParallel = 1,
    extra: Extra,
    start: Start = False,
    wait: Wait = 1800.0,
    log: Log = None,
    verify: Verify,
    tokenizer: Tokenizer = None,
    local: Local = None,
    tolerance: Tolerance = 0.05,
    api_key_env: ApiKeyEnv = None,
) -> None:
    """Print or start the vLLM command that serves MODEL; check that it scores as it should.

    Without --start and --verify, nothing is run. The command needs vLLM 0.19 or newer.
    """
    from stepcredit.prm.serving.server_check import CheckSettings

    flags = {
        "port": port,
        "host": host,
        "served_name": served_name,
        "revision": revision,
        "max_model_len": max_model_len,
        "dtype": dtype,
        "memory_share": memory_share,
        "tensor_parallel": tensor_parallel,
        "data_parallel": data_parallel,
        "extra": extra,
    }
    command = command_for(model, role, protocol, settings, flags)
    checks = CheckSettings(
        tokenizer=tokenizer, api_key_env=api_key_env, local=local, tolerance=tolerance
    )
    if start and verify:
        raise SettingError("checks a server that runs: leave one of the two out", field="--verify")
    if verify:
        for url in verify:
            print_checks(command, url, checks)
    elif start:
        start_and_keep(command, checks, wait, log)
    else:
        print_command(command)


def command_for(
    model: str,
    role: str | None,
    protocol: str | None,
    settings: list[str],
    flags: dict[str, Any],
) -> VLLMCommand:
    """The command that the options name.

    Raises:
        SettingError: names the option at fault.
    """
    from stepcredit.prm.serving.served_models import model_to_serve
    from stepcredit.prm.serving.vllm_command import VLLMCommand, VLLMSettings

    given = settings_of(settings)
    try:
        served = model_to_serve(model, role, protocol, given)
    except SettingError as error:
        if error.field in ("as", "protocol"):
            raise error.at(field=f"--{error.field}") from error.__cause__
        raise
    try:
        return VLLMCommand(served, VLLMSettings(**flags))
    except SettingError as error:
        option = f"--{str(error.field).replace('_', '-')}"
        raise error.at(field=option) from error.__cause__


def print_command(command: VLLMCommand) -> None:
    """Print the command, and the options of the signal that fit it as comments."""
    typer.echo(command.text)
    fields = command.signal_fields(f"http://HOST:{command.port}")
    options = " ".join(f"--set {option_text(name, value)}" for name, value in fields.items())
    typer.echo(f"# scored by: --signal {command.signal} {options}")
    typer.echo(
        f"# checked by: stepcredit serve {command.named} --verify http://HOST:{command.port}"
    )


def option_text(name: str, value: Any) -> str:
    """`NAME=VALUE` as a shell takes it.

    Example:
        >>> print(option_text("context", 4096))
        context=4096
        >>> print(option_text("protocol_settings", {"separator": ";"}))
        'protocol_settings={"separator":";"}'
    """
    spelled = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return shlex.quote(f"{name}={spelled}")


def print_checks(command: VLLMCommand, url: str, settings: CheckSettings) -> None:
    """Check a running server, and print a line for each check that holds.

    Raises:
        SettingError: the address is none.
        SignalError: a check fails.
    """
    from stepcredit.prm.serving.server_check import check_server
    from stepcredit.signals.served.served_signal import is_address, shown_address

    expected = is_address(url)
    if expected:
        raise SettingError(f"expected {expected}, got {shown_address(url)}", field="--verify")
    for line in check_server(command, url.rstrip("/"), settings):
        typer.echo(f"{url}: {printable(line)}")


def start_and_keep(
    command: VLLMCommand, settings: CheckSettings, limit: float, log: Path | None
) -> None:
    """Start the server, wait for its health, check it, and keep it until it ends or Ctrl-C.

    Raises:
        SignalError: it ends, is not healthy in time, or fails a check.
    """
    from stepcredit.prm.serving.server_process import ServerProcess

    say(f"starting: {command.shown}")
    secrets = [*command.secrets, *filter(None, [os.environ.get("VLLM_API_KEY")])]
    where: dict[str, Any] = {"host": command.settings.host, "port": command.port}
    where |= {"log": log, "secrets": secrets}
    with ServerProcess(command.arguments, command.url, **where) as server, said_when_stopped():
        with last_lines_of(server), waiting_line(command.url, limit) as report:
            seconds = server.wait_until_healthy(limit, report)
        say(f"{command.url}: healthy after {seconds:.0f} s")
        print_checks(command, command.url, settings)
        say(f"{command.url}: serves {command.name} until Ctrl-C")
        with last_lines_of(server):
            server.wait()


@contextmanager
def said_when_stopped() -> Iterator[None]:
    """Say that the server is stopped, which takes a while, after Ctrl-C and other stop signals."""
    try:
        yield
    except KeyboardInterrupt:
        say("stopping the server (Ctrl-C again kills it)")
        raise


@contextmanager
def last_lines_of(server: ServerProcess) -> Iterator[None]:
    """Show the last lines of a server's output if it fails."""
    try:
        yield
    except SignalError:
        for line in list(server.lines)[-SHOWN_LINES:]:
            say(f"  {line}")
        raise


@contextmanager
def waiting_line(url: str, limit: float) -> Iterator[Callable[[float, str], None]]:
    """A callback that shows how long a server has been waited for, and what it wrote last.

    On a terminal one line is rewritten; else a line is printed every 10 seconds.
    """
    on_terminal = sys.stderr.isatty()
    said_at = time.monotonic()

    def report(seconds: float, last: str) -> None:
        nonlocal said_at
        line = f"{url}: waiting, {seconds:.0f} of {limit:.0f} s"
        line = printable(f"{line}: {last}" if last else line)
        if on_terminal:
            sys.stderr.write(f"\r\x1b[K{line[:110]}")
            sys.stderr.flush()
        elif time.monotonic() - said_at >= SAY_EVERY:
            said_at = time.monotonic()
            say(line)

    try:
        yield report
    finally:
        if on_terminal:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
