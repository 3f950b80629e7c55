"""The embedded stack in folders with unusual names, and in ones that are not ours."""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path

import pytest

from pipeline.embedded import EmbeddedFailed, EmbeddedKafka, EmbeddedTriton, jars, kafka, triton
from pipeline.embedded.plain_names import PlainNames
from pipeline.embedded.wheel import TritonFiles


def _java_reads(file: Path) -> str:
    """A .properties file as Java reads it: Latin-1, then escapes, some for half a letter."""
    halves = file.read_bytes().decode("unicode_escape")
    return halves.encode("utf-16", "surrogatepass").decode("utf-16")


@pytest.mark.parametrize("name", ["dätä", "日本", "back\\slash", "two words", "🙂"])
def test_the_broker_is_told_its_folder_whole(tmp_path: Path, name: str) -> None:
    """Java reads the settings as Latin-1 with escapes; the folder survives that."""
    settings = EmbeddedKafka(tmp_path, tmp_path / name, 9)._write_settings()
    assert f"log.dirs={tmp_path / name}/topics" in _java_reads(settings).splitlines()


async def test_a_comma_in_the_brokers_folder_is_refused(tmp_path: Path) -> None:
    """`log.dirs` is a list with commas: the topics would lie elsewhere."""
    with pytest.raises(EmbeddedFailed, match=r"cannot keep its data in .*a,b.*comma"):
        await EmbeddedKafka(tmp_path, tmp_path / "a,b").start()


async def test_a_folder_the_broker_cannot_write_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A data folder that cannot be made is one line with a remedy."""

    async def jars_there(*_: object) -> Path:
        return tmp_path

    monkeypatch.setattr(kafka, "find_java", lambda: Path("java"))
    monkeypatch.setattr(kafka, "resolve_jars", jars_there)
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedFailed, match=r"Kafka cannot use .*file.*SLUICE_HOME"):
        await EmbeddedKafka(tmp_path, tmp_path / "file" / "kafka").start()


async def test_a_log_that_maven_cannot_have_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not told as jars that cannot be resolved, nor with an earlier run's words."""
    monkeypatch.setattr(jars, "find_maven", lambda: Path("mvn"))
    (tmp_path / "kafka" / "maven.log").mkdir(parents=True)
    (pom := tmp_path / "pom.xml").touch()
    with pytest.raises(EmbeddedFailed, match=r"Maven cannot use .*maven\.log.*SLUICE_HOME"):
        await jars.resolve_jars(tmp_path, pom, lambda _line: None)


async def test_a_log_that_triton_cannot_have_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not told as a server that did not start, nor with an earlier run's words."""
    files = TritonFiles(server=tmp_path, backends=tmp_path, caches=tmp_path, libraries=tmp_path)
    monkeypatch.setattr(triton, "find_triton", lambda _home: files)
    server = EmbeddedTriton(tmp_path, [], tmp_path)
    server._choose_ports()
    server.log.mkdir(parents=True)
    with pytest.raises(EmbeddedFailed, match=r"Triton cannot use .*server-.*SLUICE_HOME"):
        await server.start()


def test_no_path_that_triton_gives_to_bash_has_a_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Model repository and backends get names that a shell leaves alone, for the run."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    odd = tmp_path / "my (models)"
    (odd / "python").mkdir(parents=True)
    triton = EmbeddedTriton(odd, [], tmp_path)
    command = triton._command(
        TritonFiles(server=odd / "bin", backends=odd, caches=odd, libraries=odd)
    )
    options = dict(word.split("=", 1) for word in command if "=" in word)
    for option in ("--model-repository", "--backend-directory"):
        assert shlex.quote(options[option]) == options[option]
        assert (Path(options[option]) / "python").is_dir()
    triton._names.forget()
    assert [path.name for path in tmp_path.iterdir()] == [odd.name]
    assert odd.is_dir()


def test_a_plain_folder_keeps_its_name(tmp_path: Path) -> None:
    """No link is made for it, and there is nothing to remove."""
    names = PlainNames()
    assert names.of(tmp_path) == tmp_path
    names.forget()


def test_a_temporary_folder_with_a_space_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Links in it would be no better; the error says what to set."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "my tmp"))
    with pytest.raises(EmbeddedFailed, match=r"my tmp\. Set TMPDIR"):
        PlainNames().of(tmp_path / "a b")


async def test_what_an_interrupted_resolution_left_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Maven copies into a folder that is new, also when process ids come round again."""

    async def copy(_pom: Path, target: Path, _log: Path) -> None:
        assert not target.exists()
        target.mkdir(parents=True)
        (target / "whole.jar").touch()

    monkeypatch.setattr(jars, "_copy_dependencies", copy)
    monkeypatch.setattr("os.getpid", lambda: 7)
    pom = tmp_path / "pom.xml"
    pom.touch()
    libs = await jars.resolve_jars(tmp_path / "first", pom, lambda _line: None)
    stale = tmp_path / "home" / "kafka" / "libs" / f"{libs.name}.partial-7"
    stale.mkdir(parents=True)
    (stale / "half.jar").touch()
    libs = await jars.resolve_jars(tmp_path / "home", pom, lambda _line: None)
    assert [path.name for path in libs.iterdir()] == ["whole.jar"]


async def test_two_brokers_of_one_process_write_two_class_archives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each dumps under a name of its own, so that neither renames the other's half."""
    commands: list[list[str]] = []

    class Stub:
        pid = None

        def __init__(self, _name: str, command: list[str], **_: object) -> None:
            commands.append(command)

        async def start(self) -> None: ...

        async def until(self, *_: object, **__: object) -> None: ...

    monkeypatch.setattr(kafka, "ManagedProcess", Stub)
    monkeypatch.setattr(kafka, "java_build", lambda _java: "0")
    for name in ("a", "b"):
        broker = EmbeddedKafka(tmp_path, tmp_path / name, 9)
        await broker._run(Path("java"), tmp_path, tmp_path / "settings")
    flags = {word for command in commands for word in command if "ArchiveClassesAtExit" in word}
    assert len(flags) == 2
