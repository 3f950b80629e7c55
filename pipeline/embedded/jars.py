"""The Java side's prerequisites: a JDK, Maven, and the broker's jars.

Maven resolves the jars once, from the pinned `pom.xml`, into
`<home>/kafka/libs/<hash of the pom>`: a folder that exists is complete.
"""

from __future__ import annotations

import functools
import hashlib
import re
import secrets
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from pipeline.embedded.process import EmbeddedFailed, ManagedProcess

MIN_JAVA = 17  # Kafka 4's broker is compiled for 17

_RESOLVE_TIMEOUT_S = 600.0
_MAVEN_REMEDY = (
    "Check the network, and the mirror or proxy in Maven's settings.xml: Maven Central or a"
    " mirror of it must answer. Then try again"
)


def find_java() -> Path:
    """The `java` on PATH; raises EmbeddedFailed when missing or too old."""
    remedy = f"Install a JDK {MIN_JAVA} or newer and put its java first on PATH"
    found = shutil.which("java")
    if found is None:
        raise EmbeddedFailed("Java", "is not on PATH", remedy=remedy)
    version = java_version(Path(found))
    if version < MIN_JAVA:
        raise EmbeddedFailed("Java", f"{found} is version {version}", remedy=remedy)
    return Path(found)


def java_version(java: Path) -> int:
    """The feature version (17, 21, ...) of a `java`; 0 when it says none."""
    said = _java_says(java)
    match = re.search(r'version "(?:1\.)?(\d+)', said)
    return int(match.group(1)) if match else 0


def java_build(java: Path) -> str:
    """Eight hex digits that change with the JDK's exact build."""
    return hashlib.sha256(_java_says(java).encode()).hexdigest()[:8]


@functools.cache
def _java_says(java: Path) -> str:
    """What `java -version` prints; asked once, as each answer takes 0.1 s."""
    done = subprocess.run(
        [java, "-version"],
        stderr=subprocess.STDOUT,
        stdout=subprocess.PIPE,
        timeout=30,
        check=False,
    )
    return done.stdout.decode(errors="replace")


def find_maven() -> Path:
    """The `mvn` on PATH; raises EmbeddedFailed when it is missing."""
    found = shutil.which("mvn")
    if found is None:
        remedy = "Install Apache Maven 3.6.3 or newer and put mvn on PATH"
        raise EmbeddedFailed("Maven", "is not on PATH", remedy=remedy)
    return Path(found)


async def resolve_jars(home: Path, pom: Path, on_progress: Callable[[str], None]) -> Path:
    """The folder with every jar that `pom` asks for; resolved if need be.

    Safe to call from several processes at once: each resolves into a folder of
    its own, and the first rename wins. Raises EmbeddedFailed with Maven's
    words when a jar cannot be had.
    """
    wanted = hashlib.sha256(pom.read_bytes()).hexdigest()[:12]
    libs = home / "kafka" / "libs" / wanted
    if libs.is_dir():
        return libs
    on_progress("resolving the Kafka broker's jars with Maven (45 MB, first time only)")
    partial = libs.with_name(f"{wanted}.partial-{secrets.token_hex(4)}")
    try:
        await _copy_dependencies(pom, partial, home / "kafka" / "maven.log")
        _publish(partial, libs)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    on_progress(f"resolved {len(list(libs.glob('*.jar')))} jars")
    return libs


async def _copy_dependencies(pom: Path, target: Path, log: Path) -> None:
    """Have Maven copy the runtime jars of `pom` into `target`."""
    command = [str(find_maven()), "--batch-mode", "--no-transfer-progress", "--strict-checksums"]
    command += ["--file", str(pom), "dependency:copy-dependencies"]
    command += ["-DincludeScope=runtime", f"-DoutputDirectory={target}"]
    maven = ManagedProcess("Maven", command, log=log, remedy=_MAVEN_REMEDY)
    try:
        await maven.start()
        await maven.completed(timeout_s=_RESOLVE_TIMEOUT_S)
    except EmbeddedFailed as error:
        if maven.status is None:  # it never ran: the log is not to be opened, or an older one
            raise
        errors = [line for line in maven.said().splitlines() if line.startswith("[ERROR]")]
        words = "\n".join(errors[:4])
        raise maven.failure("could not resolve the broker's jars", tail=words) from error
    finally:
        await maven.stop()


def _publish(partial: Path, libs: Path) -> None:
    """Give the finished folder its name, unless another process was first."""
    try:
        partial.rename(libs)
    except OSError:
        if not libs.is_dir():
            raise
