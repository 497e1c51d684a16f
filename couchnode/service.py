"""``twistd couchnode``: its options, and its service."""

from __future__ import annotations

import atexit
import ipaddress
import os
import stat
import sys
from collections.abc import Callable
from os.path import exists, isdir, isfile
from pathlib import Path
from typing import Any, cast

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python import usage
from twisted.python.failure import Failure

from couchbase.protocol.version import VERSION
from couchnode.cluster.definition import (
    MAX_REPLICAS,
    MEBIBYTE,
    MIN_QUOTA_BYTES,
    DefinitionError,
    bucket_name_fault,
)
from couchnode.cluster.metadata import DataDirectoryError
from couchnode.cluster.passwords import UserError, check_password_text, check_user_name
from couchnode.data.storage import StoreError
from couchnode.embedded import DEFAULT_QUOTA_BYTES, EmbeddedNode, StartError
from couchnode.sample import SampleError
from couchnode.tls import BY_COMMON_NAME, NodeTls, TlsError, UserRule
from reactor.clock import use_monotonic_clock
from reactor.commandline import ProgramOptions, run_service
from reactor.descriptors import raise_limit
from reactor.hangup import HangUp
from reactor.kinds import IReactor
from reactor.shutdown import stop_once
from reactor.standardoutput import LogsItself, PlainObserver, StandardOutput

MAX_NODES = 16
"""Largest number of nodes in one process."""

EXPECTED_ERRORS = (StartError, DataDirectoryError, StoreError, SampleError, DefinitionError, UserError)
"""Errors at the start that a message explains; any other error is a bug, and is logged with a traceback."""

__all__ = ["EmbeddedNode", "Options", "StartError", "main", "makeService"]


def _whole(option: str, low: int, high: int, what: str) -> Callable[[Any], int]:
    """Return a parser of integers whose errors name the option."""

    def read(text: Any) -> int:
        try:
            number = int(text)
        except ValueError:
            raise usage.UsageError(f"--{option} {text}: a whole number is expected") from None
        if not low <= number <= high:
            raise usage.UsageError(f"--{option} {number}: {what} from {low} to {high}")
        return number

    return read


class Options(ProgramOptions):
    """Options of ``twistd couchnode`` and ``couchnode``."""

    program = "couchnode"
    version = VERSION

    synopsis = "[options]"
    longdesc = (
        "A Couchbase-compatible node (or several in one process) for a laptop, a test or a small box. "
        "Give --data DIR to keep documents, or --ephemeral to forget them at the end."
    )

    optParameters = [
        ["rest-port", None, 8091, "Port of the cluster REST interface; 0: any free one.",
         _whole("rest-port", 0, 65535, "a port is")],
        ["kv-port", None, 11210, "Port of the key-value protocol; 0: any free one.",
         _whole("kv-port", 0, 65535, "a port is")],
        ["views-port", None, None, "Port of views, 8092 on Couchbase Server. [default: the port of REST]",
         _whole("views-port", 0, 65535, "a port is")],
        ["host", None, "127.0.0.1", "IP address to listen on. Beyond this machine --user is required."],
        ["data", None, None, "Directory to keep everything in; made if it does not exist."],
        ["nodes", None, None, "Nodes in this process; node i listens on both ports + i. [default: 1]",
         _whole("nodes", 1, MAX_NODES, "the number of nodes is")],
        ["replicas", None, 0, "Replicas of each bucket that is made by --bucket.",
         _whole("replicas", 0, MAX_REPLICAS, "the number of replicas is")],
        ["ram-quota", None, DEFAULT_QUOTA_BYTES // MEBIBYTE,
         "Memory in MiB for the documents of each such bucket on each node.",
         _whole("ram-quota", MIN_QUOTA_BYTES // MEBIBYTE, 2**20, "the quota in MiB is")],
        ["tls-cert", None, None, "PEM file of the certificate and its chain: both protocols are served "
         "with TLS, too, on further ports. SIGHUP reads the files again."],
        ["tls-key", None, None, "PEM file of that certificate's private key. [default: that of --tls-cert]"],
        ["tls-client-ca", None, None, "PEM file of authorities: clients may present their certificates in "
         "place of a password."],
        ["tls-rest-port", None, 18091, "Port of the cluster REST interface with TLS; 0: any free one.",
         _whole("tls-rest-port", 0, 65535, "a port is")],
        ["tls-kv-port", None, 11207, "Port of the key-value protocol with TLS; 0: any free one.",
         _whole("tls-kv-port", 0, 65535, "a port is")],
        ["user", None, None, "Name of the administrator."],
        ["password-file", None, None, "File whose first line is the administrator's password."],
    ]  # fmt: skip

    optFlags = [
        ["ephemeral", None, "Keep nothing on disk."],
        ["open-buckets", None, "Let clients without credentials use buckets that have no password. A node "
         "without --user always does, and is reachable from this machine only."],
    ]  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self["buckets"] = []
        self["samples"] = []
        self["tls-users"] = []
        self["tls"] = None
        self["password"] = None

    def __repr__(self) -> str:
        # A dictionary of all options would show the passwords among them.
        return f"<couchnode options at {id(self):#x}>"

    def opt_bucket(self, text: str) -> None:
        """Bucket NAME[:PASSWORD] to make if it is not there; repeatable. [default: default]"""
        name, _, password = text.partition(":")
        fault = bucket_name_fault(name)
        if fault:
            raise usage.UsageError(f"--bucket {name!r}: {fault}")
        if name.lower() in {other.lower() for other, _ in self["buckets"]}:
            raise usage.UsageError(f"--bucket {name}: given twice")
        if password:
            try:
                check_password_text(password)
            except UserError as fault_:
                raise usage.UsageError(f"--bucket {name}: {fault_}") from None
        self["buckets"].append((name, password or None))

    def opt_tls_client_user(self, text: str) -> None:
        """Where a client's certificate names the user: PART[,PREFIX[,DELIMITERS]], PART being subject.cn,
        san.uri, san.dnsname or san.email; the name follows PREFIX and ends before any of DELIMITERS.
        Repeatable: the first that fits counts. [default: subject.cn]"""
        try:
            self["tls-users"].append(UserRule.parse(text))
        except ValueError as fault:
            raise usage.UsageError(f"--tls-client-user {text}: {fault}") from None

    def opt_sample(self, text: str) -> None:
        """File of JSON lines {"id": ..., "doc": ...}, plain or .gz, to add to the first bucket; an id that
        begins with _design/ makes a design document. Repeatable."""
        path = Path(text).absolute()
        # Not Path.is_file(), which raises an error for a name that is too long.
        if not isfile(path):
            raise usage.UsageError(f"--sample {path}: there is no such file")
        self["samples"].append(path)

    def postOptions(self) -> None:
        """Check what concerns several options, and read the password.

        :raises usage.UsageError: something does not fit; the text names the option.
        """
        self._check_place()
        self._check_host()
        self._check_ports()
        self._read_password()
        self._read_tls()
        if not self._is_loopback and self["user"] is None:
            raise usage.UsageError(
                f"--host {self['host']}: beyond this machine an administrator is required: give --user and "
                "--password-file"
            )
        if not self["buckets"]:
            if not self._is_loopback:
                raise usage.UsageError(
                    f"--host {self['host']}: name the buckets with --bucket; an open one is not made "
                    "by itself where others can reach it"
                )
            self["buckets"] = [("default", None)]
        if self["user"] in [name for name, _ in self["buckets"]]:
            raise usage.UsageError(f"--user {self['user']}: a bucket has that name, and so has its user")

    def parseArgs(self, *arguments: str) -> None:
        """Refuse arguments that are no options."""
        if arguments:
            raise usage.UsageError(f"couchnode takes options only, not {' '.join(arguments)!r}")

    @property
    def _is_loopback(self) -> bool:
        return ipaddress.ip_address(self["host"]).is_loopback

    def _check_place(self) -> None:
        if self["ephemeral"] and self["data"] is not None:
            raise usage.UsageError("--ephemeral and --data exclude each other")
        if not self["ephemeral"] and not self["data"]:
            raise usage.UsageError(
                "--data DIR (to keep documents) or --ephemeral (to forget them) is required"
            )
        if self["data"] is not None:
            # twistd may change the directory before the service starts.
            self["data"] = Path(self["data"]).absolute()
            # Not the methods of Path, which raise errors for what this user may not see.
            if exists(self["data"]) and not isdir(self["data"]):
                raise usage.UsageError(f"--data {self['data']}: is not a directory")
            if not isdir(self["data"].parent):
                raise usage.UsageError(f"--data {self['data']}: its parent directory does not exist")

    def _check_host(self) -> None:
        if self["host"] == "localhost":
            self["host"] = "127.0.0.1"
        try:
            ipaddress.ip_address(self["host"])
        except ValueError:
            raise usage.UsageError(f"--host {self['host']}: an IP address is expected") from None

    def _check_ports(self) -> None:
        taken: dict[int, str] = {}
        tls = () if self["tls-cert"] is None else ("tls-rest-port", "tls-kv-port")
        views = () if self["views-port"] is None else ("views-port",)
        for option in ("rest-port", "kv-port", *views, *tls):
            first = self[option]
            for port in range(first, first + (self["nodes"] or 1)) if first else ():
                if port > 65535:
                    raise usage.UsageError(
                        f"--{option} {first}: {self['nodes']} nodes would need port {port}"
                    )
                if port in taken:
                    raise usage.UsageError(
                        f"--{option} {first}: port {port} is also used for {taken[port]}; "
                        "with --nodes N each takes N ports"
                    )
                taken[port] = f"--{option}"

    def _read_tls(self) -> None:
        certificate, key, authorities = self["tls-cert"], self["tls-key"], self["tls-client-ca"]
        if certificate is None:
            for option in ("tls-key", "tls-client-ca"):
                if self[option] is not None:
                    raise usage.UsageError(f"--{option}: --tls-cert is missing")
            if self["tls-users"]:
                raise usage.UsageError("--tls-client-user: --tls-cert is missing")
            return
        if authorities is None and self["tls-users"]:
            raise usage.UsageError("--tls-client-user: --tls-client-ca is missing")
        if authorities is not None and self["user"] is None:
            raise usage.UsageError("--tls-client-ca: a node without --user does not authenticate clients")
        # twistd may change the directory before the files are read again.
        certificate = Path(certificate).absolute()
        try:
            self["tls"] = NodeTls(
                certificate,
                certificate if key is None else Path(key).absolute(),
                None if authorities is None else Path(authorities).absolute(),
                self["tls-users"] or BY_COMMON_NAME,
                self["tls-rest-port"],
                self["tls-kv-port"],
            )
        except TlsError as fault:
            raise usage.UsageError(str(fault)) from None

    def _read_password(self) -> None:
        user, file = self["user"], self["password-file"]
        if user is None and file is None:
            return
        if user is None:
            raise usage.UsageError("--password-file: whose? --user is missing")
        if file is None:
            raise usage.UsageError("--user: --password-file is missing")
        try:
            check_user_name(user)
        except UserError as fault:
            raise usage.UsageError(f"--user: {fault}") from None
        try:
            with open(file, encoding="utf-8") as lines:
                readable_by_others = stat.S_IMODE(Path(file).stat().st_mode) & 0o044
                password = lines.readline(4096).rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as fault:
            reason = getattr(fault, "strerror", None) or fault
            raise usage.UsageError(f"--password-file {file}: cannot be read: {reason}") from None
        if not password:
            raise usage.UsageError(f"--password-file {file}: its first line is empty")
        try:
            check_password_text(password)
        except UserError as fault:
            raise usage.UsageError(f"--password-file {file}: {fault}") from None
        if readable_by_others:
            Logger().warn("--password-file {file}: others on this machine can read it", file=file)
        self["password"] = password


class NodeService(LogsItself, Service):
    """The service of ``twistd couchnode``: a node, and the end of the process if it cannot start.

    :param tls: read again on SIGHUP, which ``hangup`` watches for.
    :param hangup: a node without it ends at SIGHUP, and loses what is not on disk.
    """

    _log = Logger()

    def __init__(self, node: EmbeddedNode, tls: NodeTls | None = None, hangup: HangUp | None = None) -> None:
        self.node = node
        self._tls = tls
        self._hangup = hangup

    def startService(self) -> None:
        """Start the node; one that cannot start ends the process with a message and status 1."""
        super().startService()
        if self._hangup is not None:
            self._hangup.start(self._reload)
        self.node.start().addCallbacks(self._is_ready, self._give_up)

    def stopService(self) -> Deferred[None]:
        """Stop the node; fires when everything is on disk. If that fails, the process ends with status 1."""
        super().stopService()
        return self.node.stop().addBoth(self._has_stopped)

    def _has_stopped(self, outcome: Any) -> Any:
        if self._hangup is not None:
            self._hangup.stop()
        if not self.node.closed_cleanly:
            end_with_failure()
        return outcome

    def _reload(self) -> None:
        """Read the certificates again."""
        if self._tls is None:
            self._log.info("SIGHUP: there are no certificates to read again")
            return
        try:
            self._tls.reload()
        except TlsError as fault:
            self._log.error("SIGHUP: the certificates stay as they are: {error}", error=fault)
        else:
            self._log.info("SIGHUP: the certificates were read again")

    def _is_ready(self, _: object) -> None:
        self._log.info(
            "ready: key-value on {kv}, REST on {rest}",
            kv=self.node.connection_string,
            rest=", ".join(self.node.rest_urls),
        )
        if self._tls is not None:
            self._log.info("with TLS: {kv}", kv=self.node.tls_connection_string)

    def _give_up(self, failure: Failure) -> None:
        if failure.check(*EXPECTED_ERRORS):
            self._log.critical("couchnode cannot start: {error}", error=failure.value)
        else:
            self._log.failure("couchnode cannot start", failure)
        end_process()


def end_process() -> None:
    """Stop the reactor because a service cannot start; the process then ends with status 1."""
    from twisted.internet import reactor

    core: Any = reactor
    end_with_failure()
    if core.running:
        core.stop()
    else:
        core.callWhenRunning(core.stop)


def end_with_failure() -> None:
    """Let the process, which is stopping, end with status 1."""
    from twisted.internet import reactor

    # Else twistd would end it by this signal, as after an orderly stop.
    cast(Any, reactor)._exitSignal = None
    # Without a signal twistd ends with status 0; this runs after it has cleaned up.
    atexit.register(_exit_with_failure)


def _exit_with_failure() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def makeService(options: Options) -> NodeService:
    """Return the service that ``options`` describe; nothing is opened before it starts."""
    # Not at the top: importing the reactor there would choose one before twistd's --reactor can.
    from twisted.internet import reactor

    use_monotonic_clock(reactor)
    stop_once(cast(IReactor, reactor))
    raise_limit()
    node = EmbeddedNode(
        options["data"],
        nodes=options["nodes"],
        replicas=options["replicas"],
        users=[] if options["user"] is None else [(options["user"], options["password"])],
        buckets=options["buckets"],
        rest_port=options["rest-port"],
        kv_port=options["kv-port"],
        views_port=options["views-port"],
        host=options["host"],
        quota_bytes=options["ram-quota"] * MEBIBYTE,
        sample=options["samples"],
        open_buckets=bool(options["open-buckets"]),
        tls=options["tls"],
    )
    service = NodeService(node, options["tls"], HangUp(cast(IReactor, reactor)))
    if options.logs_to_output and sys.__stdout__ is not None:
        service.log_observer = PlainObserver(StandardOutput(sys.__stdout__).write)
    return service


def main() -> None:
    """Run ``couchnode``: the node in the foreground."""
    run_service(Options, sys.argv[1:])
