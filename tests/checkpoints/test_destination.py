"""The new file is whole or not there, and no other file is lost."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

import rotary_spec as rs
from rotary_spec import checkpoints
from rotary_spec.checkpoints import convert_file
from tests.checkpoint_files import (
    HALF,
    assert_nothing_written,
    llama,
    write,
)


class TestDestination:
    def test_exists(self, source: Path, out: Path) -> None:
        write(source, llama())
        out.write_bytes(b"precious")
        with pytest.raises(rs.CheckpointError, match=r"exists\. Hint: remove it"):
            convert_file(source, out, **HALF)
        assert out.read_bytes() == b"precious"
        assert len(list(out.parent.iterdir())) == 1

    def test_dangling_link(self, source: Path, out: Path) -> None:
        write(source, llama())
        out.symlink_to("nowhere")
        with pytest.raises(rs.CheckpointError, match="exists"):
            convert_file(source, out, **HALF)
        assert out.is_symlink()

    @pytest.mark.parametrize("link", [None, "symlink_to", "hardlink_to"])
    def test_is_the_source(self, source: Path, out: Path, link: str | None) -> None:
        write(source, llama())
        before = source.read_bytes()
        if link is not None:
            getattr(out, link)(source)
        target = source.parent / ".." / "in" / source.name if link is None else out
        with pytest.raises(rs.CheckpointError, match="is the source itself"):
            convert_file(source, target, **HALF)
        assert source.read_bytes() == before

    def test_no_directory(self, source: Path, out: Path) -> None:
        write(source, llama())
        with pytest.raises(rs.CheckpointError, match="its directory does not exist"):
            convert_file(source, out / "deeper", **HALF)

    def test_permissions_are_those_of_any_new_file(self, source: Path, out: Path) -> None:
        write(source, llama())
        convert_file(source, out, **HALF)
        plain = out.with_name("plain")
        plain.touch()
        assert out.stat().st_mode == plain.stat().st_mode
        assert {path.name for path in out.parent.iterdir()} == {out.name, "plain"}


class Killed(BaseException):
    """Not an Exception: nothing on the way may swallow it."""


class TestInterrupted:
    @pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, Killed])
    @pytest.mark.parametrize("after", [0, 5, 10])
    def test_by_the_caller(
        self, source: Path, out: Path, error: type[BaseException], after: int
    ) -> None:
        """First tensor, in the middle, all bytes written: there is no file, and the source is."""
        write(source, llama())
        before, calls = source.read_bytes(), []

        def progress(*call: object) -> None:
            assert not out.exists()
            calls.append(call)
            if len(calls) > after:
                raise error

        with pytest.raises(error):
            convert_file(source, out, **HALF, progress=progress)
        assert_nothing_written(out)
        assert source.read_bytes() == before

    def test_disk_full(self, source: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fsync(number: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        write(source, llama())
        monkeypatch.setattr(os, "fsync", fsync)
        with pytest.raises(rs.CheckpointError, match=r"out/model\.safetensors: No space left"):
            convert_file(source, out, **HALF)
        assert_nothing_written(out)

    def test_source_shrinks(self, source: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(checkpoints, "_CHUNK", 1)
        write(source, {"q_proj.weight": ("F32", (1024, 1024))})

        with pytest.raises(rs.CheckpointError, match="became shorter while it was read"):
            convert_file(source, out, **HALF, progress=lambda *call: os.truncate(source, 9999))
        assert_nothing_written(out)

    @pytest.fixture(params=["hard links", "no hard links"])
    def links(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        def link(source: object, destination: object) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        if request.param == "no hard links":
            monkeypatch.setattr(os, "link", link)

    @pytest.mark.usefixtures("links")
    def test_file_systems(self, source: Path, out: Path) -> None:
        write(source, llama())
        convert_file(source, out, **HALF)
        assert out.stat().st_size == source.stat().st_size
        assert [path.name for path in out.parent.iterdir()] == [out.name]

    @pytest.mark.usefixtures("links")
    def test_destination_appears_meanwhile(self, source: Path, out: Path) -> None:
        write(source, llama())
        with pytest.raises(rs.CheckpointError, match="appeared while this ran, and was kept"):
            convert_file(
                source, out, **HALF, progress=lambda *call: out.write_bytes(b"somebody else's")
            )
        assert out.read_bytes() == b"somebody else's"
        assert [path.name for path in out.parent.iterdir()] == [out.name]

    def test_claim_is_given_up(
        self, source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without hard links the name is claimed first; an interrupt then must not keep it."""

        def link(*paths: object) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        def replace(*paths: object) -> None:
            assert out.read_bytes() == b""
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "link", link)
        monkeypatch.setattr(os, "replace", replace)
        write(source, llama())
        with pytest.raises(KeyboardInterrupt):
            convert_file(source, out, **HALF)
        assert_nothing_written(out)
