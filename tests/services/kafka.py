"""Owns a real Apache Kafka for tests: an address given, a container, or brokers run with Java from Maven's jars.

Nothing is left running: brokers are told by the kernel (PR_SET_PDEATHSIG) when the test process dies.
"""

import ctypes
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from tests.services import memory

KAFKA_VERSION = "4.3.0"
ADDRESS_VARIABLE = "TOCENGINE_TEST_KAFKA"
READY_S = 60.0

POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tocengine</groupId>
  <artifactId>test-kafka</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{KAFKA_VERSION}</version>
    </dependency>
  </dependencies>
</project>
"""

JVM_FLAGS = ("-Xmx384m", "-Xms128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


class NoKafkaError(Exception):
    """None of the ways to a Kafka exists here; the text says what each lacked."""


class KafkaCluster:
    """A running Kafka. `bootstrap` is what clients connect to; `controllable` says whether brokers can be killed."""

    bootstrap: str
    brokers: int = 1
    controllable = False

    def stop(self) -> None:
        """Ends what was started here."""


class ExternalKafka(KafkaCluster):
    """Somebody else's broker, at the address in TOCENGINE_TEST_KAFKA."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap


class ContainerKafka(KafkaCluster):
    """One broker in a container."""

    def __init__(self) -> None:
        from testcontainers.kafka import KafkaContainer

        self._container = KafkaContainer(f"apache/kafka:{KAFKA_VERSION}").with_kraft()
        self._container.start()
        self.bootstrap = self._container.get_bootstrap_server()

    def stop(self) -> None:
        self._container.stop()


class JavaKafka(KafkaCluster):
    """One broker, or three (replication 3, min.insync 2), as processes: KRaft combined mode on loopback."""

    controllable = True

    def __init__(self, brokers: int = 1, *, jvm_flags: Sequence[str] | None = None, place: str | None = None) -> None:
        self._lib = _jars()
        self._jvm_flags = jvm_flags or (*JVM_FLAGS, *_classes(self._lib))
        self._folder = Path(tempfile.mkdtemp(prefix="tocengine-kafka-", dir=place))
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._ports = free_ports(2 * brokers)
        self.brokers = brokers
        self.bootstrap = ",".join(f"127.0.0.1:{self._ports[2 * n]}" for n in range(brokers))
        try:
            self._format(f"{uuid4().hex[:22]}")
            for number in range(brokers):
                self.start_broker(number, wait=False)
            for number in range(brokers):
                self.wait_ready(number)
        except BaseException:
            self.stop()
            raise

    def start_broker(self, number: int, *, wait: bool = True) -> None:
        """Starts a broker that does not run; returns when it accepts connections."""
        with (self._folder / f"broker-{number}.log").open("ab") as output:
            self._processes[number] = subprocess.Popen(
                self._java("kafka.Kafka", str(self._configuration(number))),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=_die_with_parent,
            )
        if wait:
            self.wait_ready(number)

    def kill_broker(self, number: int) -> None:
        """``kill -9``, and waits until it is gone."""
        process = self._processes.pop(number)
        process.kill()
        process.wait()

    def pid(self, number: int) -> int:
        """The process id of a running broker."""
        return self._processes[number].pid

    def wait_ready(self, number: int) -> None:
        """Returns when the broker accepts connections; raises with the end of its output when it does not."""
        deadline = time.monotonic() + READY_S
        address = ("127.0.0.1", self._ports[2 * number])
        while True:
            with suppress(OSError), socket.create_connection(address, timeout=0.5):
                return
            if time.monotonic() > deadline or self._processes[number].poll() is not None:
                output = (self._folder / f"broker-{number}.log").read_text(errors="replace")
                raise RuntimeError(f"broker {number} did not start: {output[-2000:]}")
            with suppress(subprocess.TimeoutExpired):
                self._processes[number].wait(0.05)  # between two looks; at once when it dies

    def shut_down(self) -> None:
        """Lets every broker end by itself. Raises TimeoutExpired after READY_S seconds."""
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            process.wait(READY_S)

    def stop(self) -> None:
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait()
        self._processes.clear()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _format(self, cluster: str) -> None:
        """Does without ``kafka-storage format``, a JVM for each broker: with no ``bootstrap.checkpoint`` the controller
        takes the newest metadata version, as that command does."""
        for number in range(self.brokers):
            self._write_configuration(number)
            data = self._folder / f"data-{number}"
            data.mkdir()
            (data / "meta.properties").write_text(f"version=1\ncluster.id={cluster}\nnode.id={number}\n")

    def _java(self, *arguments: str) -> list[str]:
        temporary = f"-Djava.io.tmpdir={self._folder}"  # what a killed broker leaves goes with the folder
        return ["java", *self._jvm_flags, temporary, "-cp", f"{self._lib}/*", *arguments]

    def _configuration(self, number: int) -> Path:
        return self._folder / f"broker-{number}.properties"

    def _write_configuration(self, number: int) -> None:
        broker, controller = self._ports[2 * number], self._ports[2 * number + 1]
        voters = ",".join(f"{n}@127.0.0.1:{self._ports[2 * n + 1]}" for n in range(self.brokers))
        settings = {
            "process.roles": "broker,controller",
            "node.id": number,
            "controller.quorum.voters": voters,
            "listeners": f"PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{broker}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": self._folder / f"data-{number}",
            "auto.create.topics.enable": "false",
            "offsets.topic.num.partitions": 3,
            "offsets.topic.replication.factor": self.brokers,
            "transaction.state.log.num.partitions": 3,
            "transaction.state.log.replication.factor": self.brokers,
            "transaction.state.log.min.isr": min(2, self.brokers),
            "group.initial.rebalance.delay.ms": 0,
            "group.min.session.timeout.ms": 1000,
            "broker.session.timeout.ms": 4000,
            "broker.heartbeat.interval.ms": 500,
            "num.network.threads": 2,
            "num.io.threads": 4,
        }
        text = "".join(f"{name}={value}\n" for name, value in settings.items())
        self._configuration(number).write_text(text)


def find_kafka() -> KafkaCluster:
    """The first way that works: the address given, Docker, Java. Raises NoKafkaError."""
    if address := os.environ.get(ADDRESS_VARIABLE):
        return ExternalKafka(address)
    reasons = [f"{ADDRESS_VARIABLE} is not set"]
    try:
        _require_docker()
        return ContainerKafka()
    except NoKafkaError as error:
        reasons.append(str(error))
    try:
        return JavaKafka(place=memory.place())
    except NoKafkaError as error:
        reasons.append(str(error))
    raise NoKafkaError("; ".join(reasons))


def java_missing() -> str:
    """Why brokers cannot be run here as processes; empty where they can."""
    try:
        _jars()
    except NoKafkaError as error:
        return str(error)
    return ""


def _require_docker() -> None:
    sockets = [os.environ.get("DOCKER_HOST", ""), "/var/run/docker.sock"]
    if not any(
        place and (place.startswith("tcp:") or Path(place.removeprefix("unix://")).exists()) for place in sockets
    ):
        raise NoKafkaError("no Docker daemon")
    from docker import from_env  # type: ignore[import-untyped]
    from docker.errors import DockerException  # type: ignore[import-untyped]

    try:
        from_env(timeout=3).ping()
    except (DockerException, OSError) as error:
        raise NoKafkaError(f"no Docker daemon answers ({type(error).__name__})") from None


def _jars() -> Path:
    """The folder with Kafka's jars, fetched once with Maven into the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tocengine" / "kafka" / KAFKA_VERSION
    lib = cache / "lib"
    if shutil.which("java") is None:
        raise NoKafkaError("no Java")
    with _locked(cache):
        if lib.is_dir():
            return lib
        if shutil.which("mvn") is None:
            raise NoKafkaError("no Maven to fetch Kafka with")
        (cache / "pom.xml").write_text(POM)
        fetched = cache / f"lib-{os.getpid()}"
        command = [
            "mvn",
            "-q",
            "dependency:copy-dependencies",
            "-DincludeScope=runtime",
            f"-DoutputDirectory={fetched}",
        ]
        result = subprocess.run(command, cwd=cache, capture_output=True, timeout=300, check=False)
        if result.returncode != 0:
            shutil.rmtree(fetched, ignore_errors=True)
            raise NoKafkaError(f"Maven could not fetch Kafka: {result.stdout.decode(errors='replace')[-300:]}")
        fetched.rename(lib)  # whole or not at all
    return lib


def _classes(lib: Path) -> Sequence[str]:
    """The flag for the classes a broker loads, as this JVM keeps them ready: with them a start takes half the CPU. Left
    once by a broker that ended by itself; an empty file says that none was left, and is none to start with."""
    java = Path(shutil.which("java") or "java").resolve()
    classes = lib.parent / "classes" / f"{java.stat().st_mtime_ns:x}.jsa"
    with _locked(classes.parent):  # not that of the jars, which the broker takes
        if not classes.exists():
            unfinished = classes.with_suffix(f".{os.getpid()}")
            broker = JavaKafka(jvm_flags=(*JVM_FLAGS, f"-XX:ArchiveClassesAtExit={unfinished}"))
            try:
                broker.shut_down()
            except subprocess.TimeoutExpired:
                broker.stop()
                unfinished.unlink(missing_ok=True)  # half of it
            finally:
                broker.stop()
            unfinished.touch()  # where none was left: it is not tried again
            unfinished.rename(classes)
    return (f"-XX:SharedArchiveFile={classes}",) if classes.stat().st_size else ()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on, all different: none is given back before the last is found."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
