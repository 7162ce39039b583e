"""Answers from memory: the same as those from disk, and never older than what is on disk."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ktls_server.files import remembered
from ktls_server.files.remembered import Answers
from ktls_server.files.resolve import Proof, Root
from ktls_server.files.site import Site
from ktls_server.semantics.messages import Response
from tests.files.asking import ask
from tests.files.cases import CASES, SITES, Case, make_folder
from tests.files.test_site import serving


@pytest.fixture(autouse=True)
def every_file_is_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """ctime cannot be set, and waiting two seconds in each test is long."""
    monkeypatch.setattr(Answers, "is_settled", lambda _self, _proof: True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path)


def from_memory(site: Site) -> int:
    return len(site._answers._answers)


@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.what)
def test_the_third_answer_is_the_first(case: Case, folder: Path) -> None:
    with serving(folder, **SITES[case.site]) as site:
        fields = case.request_fields(lambda fields: ask(site, case.target, **fields).fields["etag"])
        answers = [ask(site, case.target, case.method, **fields) for _ in range(4)]
    first = answers[0]
    for other in answers[1:]:
        assert (other.status, other.content_length, other.close) == (first.status, first.content_length, first.close)
        if "multipart" not in first.fields.get("content-type", ""):  # whose boundary is random
            assert (other.fields, other.body) == (first.fields, first.body)


@pytest.fixture
def site_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    (folder / "sub").mkdir(parents=True)
    for name in ("page.html", "sub/page.html"):
        (folder / name).write_bytes(b"before")
    (folder / "other.html").write_bytes(b"other!")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "page.html").write_bytes(b"secret")
    return folder


def _replace(folder: Path, name: str) -> None:
    (folder / "new").write_bytes(b"after!")
    (folder / "new").rename(folder / name)


def _rewrite(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"after!")


def _shorten(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"")


def _rewrite_with_old_times(folder: Path, name: str) -> None:
    status = (folder / name).stat()
    (folder / name).write_bytes(b"after!")
    os.utime(folder / name, ns=(status.st_atime_ns, status.st_mtime_ns))


def _remove(folder: Path, name: str) -> None:
    (folder / name).unlink()


def _forbid(folder: Path, name: str) -> None:
    (folder / name).chmod(0)


def _become_symlink(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / name).symlink_to(folder / "other.html")


def _become_symlink_that_leads_out(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / name).symlink_to(folder.parent / "outside" / "page.html")


def _become_folder(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / name).mkdir()


def _gain_sibling(folder: Path, name: str) -> None:
    (folder / f"{name}.gz").write_bytes(b"sibling")


CHANGES = (
    *(_replace, _rewrite, _shorten, _rewrite_with_old_times, _remove, _forbid, _become_symlink),
    *(_become_symlink_that_leads_out, _become_folder, _gain_sibling),
)


@pytest.mark.parametrize("name", ["page.html", "sub/page.html"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__.strip("_"))
def test_a_change_shows_in_the_next_answer(site_folder: Path, name: str, change: Callable[[Path, str], None]) -> None:
    target, fields = f"/{name}".encode(), {"accept_encoding": "gzip"}
    with serving(site_folder) as site:
        for _ in range(3):
            assert ask(site, target, **fields).body == b"before"
        assert from_memory(site) == 1
        time.sleep(0.01)  # a tick of the kernel's clock
        change(site_folder, name)
        warm = ask(site, target, **fields)
    with serving(site_folder) as site:
        cold = ask(site, target, **fields)
    assert (warm.status, warm.fields, warm.body) == (cold.status, cold.fields, cold.body)
    assert warm.body != b"before" or change is _forbid


def test_a_folder_that_becomes_a_symlink_that_leads_out_ends_what_was_remembered_below(site_folder: Path) -> None:
    """The file itself is the same, so only the way to it tells."""
    with serving(site_folder) as site:
        for _ in range(3):
            assert ask(site, b"/sub/page.html").body == b"before"
        shutil.move(site_folder / "sub", site_folder.parent / "moved")
        (site_folder / "sub").symlink_to(site_folder.parent / "moved")
        assert ask(site, b"/sub/page.html").status == 404


def test_what_changed_a_moment_ago_is_not_remembered(site_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second change within a tick of the kernel's clock would leave no trace."""
    monkeypatch.undo()
    with serving(site_folder) as site:
        for _ in range(3):
            ask(site, b"/page.html")
        assert from_memory(site) == 0


def test_an_answer_is_settled_after_two_seconds(site_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    root = Root(site_folder)
    status = (site_folder / "page.html").stat()
    proof = root.proof([(b"page.html", status)], ())
    assert proof is not None
    newest = max(status.st_mtime_ns, status.st_ctime_ns) / 1e9
    assert not Answers(root, lambda: newest + 1.9).is_settled(proof)
    assert Answers(root, lambda: newest + 2.1).is_settled(proof)
    root.close()


def test_a_file_behind_a_symlink_inside_the_root_is_remembered_and_followed_again(site_folder: Path) -> None:
    (site_folder / "releases" / "2").mkdir(parents=True)
    (site_folder / "releases" / "2" / "page.html").write_bytes(b"second")
    (site_folder / "current").symlink_to("sub")
    with serving(site_folder) as site:
        for _ in range(3):
            assert ask(site, b"/current/page.html").body == b"before"
        assert from_memory(site) == 1
        (site_folder / "current").unlink()
        (site_folder / "current").symlink_to("releases/2")
        assert ask(site, b"/current/page.html").body == b"second"


def test_what_is_asked_for_once_is_not_remembered(site_folder: Path) -> None:
    with serving(site_folder) as site:
        ask(site, b"/page.html")
        assert from_memory(site) == 0


def test_revalidation_is_remembered_by_its_tag(site_folder: Path) -> None:
    with serving(site_folder) as site:
        tag = ask(site, b"/page.html").fields["etag"]
        for _ in range(3):
            assert ask(site, b"/page.html", if_none_match=tag).status == 304
            assert ask(site, b"/page.html", if_none_match='"another"').status == 200
        _rewrite(site_folder, "page.html")
        assert ask(site, b"/page.html", if_none_match=tag).status == 200


def test_memory_is_bounded_and_what_was_not_asked_for_longest_goes_first(
    site_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "MAX_ANSWERS", 3)
    root = Root(site_folder)
    answers = Answers(root)
    proof = Proof((), (), ())
    for number in range(3):
        answers.remember((b"%d" % number,), Response(200, [], (bytes(100),), 100), proof)
    assert answers.get((b"0",)) is not None
    answers.remember((b"3",), Response(200, [], (bytes(100),), 100), proof)
    assert [answers.get((b"%d" % number,)) is not None for number in range(4)] == [True, False, True, True]
    monkeypatch.setattr(remembered, "MAX_BYTES", 5000)
    answers.remember((b"big",), Response(200, [], (bytes(4000),), 4000), proof)
    assert len(answers._answers) == 0 or answers._bytes <= 5000
    root.close()
