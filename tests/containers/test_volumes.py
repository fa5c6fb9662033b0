"""Volumes and bind mounts: what they hold, who may reach it, and where no link leads."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import images, leaks
from tests.support.registry import Registry
from tests.support.runner import Rl
from tests.support.undefended import changed

RUN = ("run", "--rm", "-q")


@pytest.fixture(scope="module")
def rl(make_rl: Callable[[], Rl], alpine: str) -> Rl:
    """Return the command with a store of these tests' own: they look at all its volumes."""
    return make_rl()


def out(rl: Rl, *arguments: str) -> str:
    return rl(*RUN, *arguments).stdout


def names(rl: Rl, *arguments: str) -> set[str]:
    return set(rl("volume", "ls", "-q", *arguments).stdout.split())


# rl volume


def test_volume_is_made_listed_inspected_and_removed(fresh_rl: Rl) -> None:
    rl = fresh_rl
    assert rl("volume", "create", "--label", "a=b", "--label", "c", "one").stdout == "one\n"
    header, line = rl("volume", "ls").stdout.splitlines()
    assert (header.split(), line.split()) == (["DRIVER", "VOLUME", "NAME"], ["local", "one"])
    (found,) = json.loads(rl("volume", "inspect", "one").stdout)
    assert found["Mountpoint"] == str(rl.root / "volumes/one/_data")
    assert found["CreatedAt"].endswith("Z")
    del found["CreatedAt"], found["Mountpoint"]
    assert found == {
        "Driver": "local",
        "Labels": {"a": "b", "c": ""},
        "Name": "one",
        "Options": {},
        "Scope": "local",
    }
    assert rl("inspect", "--type", "volume", "-f", "{{.Name}}", "one").stdout == "one\n"
    assert rl("inspect", "-f", "{{.Name}}", "one").stdout == "one\n"
    assert rl("volume", "rm", "one").stdout == "one\n"
    told = rl("events", "--since", "1h", "--until", "0s", "--filter", "type=volume").stdout
    assert [line.split()[1:4] for line in told.splitlines()] == [
        ["volume", "create", "one"],
        ["volume", "destroy", "one"],
    ]
    assert names(rl) == set()
    assert not (rl.root / "volumes/one").exists()


def test_volume_that_is_there_stays_as_it_is(rl: Rl) -> None:
    rl("volume", "create", "--label", "first", "twice")
    out(rl, "-v", "twice:/v", "alpine", "touch", "/v/kept")
    assert rl("volume", "create", "--label", "second", "twice").stdout == "twice\n"
    form = "{{range $name, $value := .Labels}}{{$name}}{{end}}"
    assert rl("volume", "inspect", "-f", form, "twice").stdout == "first\n"
    assert out(rl, "-v", "twice:/v", "alpine", "ls", "/v") == "kept\n"
    rl("volume", "rm", "twice")


def test_volumes_are_filtered(rl: Rl) -> None:
    rl("volume", "create", "--label", "kind=x", "alpha")
    rl("volume", "create", "--label", "kind=y", "beta")
    rl("create", "--name", "holds", "-v", "beta:/b", "alpine")
    assert names(rl, "-f", "name=alp") == {"alpha"}
    assert names(rl, "-f", "label=kind") == {"alpha", "beta"}
    assert names(rl, "-f", "label=kind=y") == {"beta"}
    assert names(rl, "-f", "dangling=true") == {"alpha"}
    assert names(rl, "-f", "dangling=0") == {"beta"}
    assert names(rl, "-f", "driver=nfs") == set()
    assert rl("volume", "ls", "-f", "dangling=perhaps", check=False).returncode == 125
    assert rl("volume", "ls", "--format", '{{.Name}} {{.Label "kind"}}').stdout == (
        "alpha x\nbeta y\n"
    )
    rl("rm", "holds")
    rl("volume", "rm", "alpha", "beta")


def test_volume_in_use_is_not_removed_and_the_container_is_named(rl: Rl) -> None:
    rl("create", "--name", "user", "-v", "used:/v", "alpine")
    done = rl("volume", "rm", "-f", "used", check=False)
    assert done.returncode == 125
    assert "volume used is in use by container user" in done.stderr
    assert names(rl) == {"used"}
    rl("rm", "-v", "user")
    # It was named, so it stays.
    assert names(rl) == {"used"}
    rl("volume", "rm", "used")
    missing = rl("volume", "rm", "used", check=False)
    assert (missing.returncode, missing.stderr) == (125, "rl: no such volume: used\n")
    assert rl("volume", "rm", "-f", "used").returncode == 0


def test_prune_removes_what_nobody_has_and_nobody_named(rl: Rl) -> None:
    nameless = rl("volume", "create").stdout.strip()
    rl("volume", "create", "--label", "keep", "named")
    rl("create", "--name", "user", "-v", "/v", "alpine")
    before = names(rl)
    assert rl("volume", "prune", input="n\n").stdout.startswith("WARNING! This will remove anony")
    assert names(rl) == before
    done = rl("volume", "prune", "-f").stdout
    assert done == f"Deleted Volumes:\n{nameless}\n\nTotal reclaimed space: 0B\n"
    assert names(rl) == before - {nameless}
    rl("volume", "prune", "-f", "-a", "--filter", "label!=keep")
    assert names(rl) == before - {nameless}
    assert "named" in rl("volume", "prune", "-f", "--all").stdout
    rl("rm", "-v", "user")
    assert names(rl) == set()


def test_files_of_other_users_in_a_volume_are_removed_with_it(rl: Rl) -> None:
    out(rl, "-v", "foreign:/v", "alpine", "sh", "-c", "mkdir -m 0 /v/d; chown 33:33 /v/d")
    rl("volume", "rm", "foreign")
    assert names(rl) == set()
    assert list((rl.root / "tmp").iterdir()) == []


def test_volume_whose_description_is_lost_is_still_there(rl: Rl) -> None:
    rl("volume", "create", "lost")
    (rl.root / "volumes/lost/volume.json").write_text("{")
    assert names(rl) == {"lost"}
    assert rl("volume", "inspect", "-f", "{{len .Labels}}", "lost").stdout == "0\n"
    rl("volume", "rm", "lost")


def test_bad_names_are_refused(rl: Rl) -> None:
    for name in ("../x", "a/b", "-x", ""):
        assert rl("volume", "create", "--", name, check=False).returncode == 125
        assert rl("volume", "rm", "--", name, check=False).returncode == 125
    assert names(rl) == set()


# What a container gets


def test_anonymous_volume_stays_while_another_container_has_it(rl: Rl) -> None:
    rl("run", "-q", "--name", "first", "-v", "/v", "alpine", "touch", "/v/x")
    (name,) = names(rl)
    arguments = ("--name", "second", "--volumes-from", "first", "alpine", "ls", "/v")
    assert rl("run", "-q", *arguments).stdout == "x\n"
    rl("rm", "-v", "first")
    assert names(rl) == {name}
    rl("rm", "-v", "second")
    assert names(rl) == set()


def test_named_anonymous_volume_stays_with_whom_it_was_named_by(rl: Rl) -> None:
    name = rl("volume", "create").stdout.strip()
    out(rl, "-v", f"{name}:/v", "alpine", "true")
    assert names(rl) == {name}
    rl("volume", "rm", name)


def test_volumes_from_brings_binds_and_volumes_and_may_make_them_read_only(
    rl: Rl, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("host\n")
    mounts = ("-v", f"{tmp_path}:/host", "-v", "shared:/srv", "--tmpfs", "/t")
    rl("create", "--name", "giver", *mounts, "alpine")
    script = "cat /host/file; touch /host/no /srv/no; ls -d /t"
    done = rl(*RUN, "--volumes-from", "giver:ro", "alpine", "sh", "-c", script, check=False)
    assert done.stdout == "host\n"
    assert done.stderr.count("Read-only file system") == 2
    assert "/t: No such file" in done.stderr
    arguments = ("--volumes-from", "giver", "-v", "/host", "alpine")
    assert out(rl, *arguments, "ls", "/host") == ""
    for wrong in ("giver:sideways", ":ro", "nobody"):
        done = rl(*RUN, "--volumes-from", wrong, "alpine", "true", check=False)
        assert done.returncode == 125
    rl("rm", "-v", "giver")
    rl("volume", "rm", "shared")


def test_empty_directory_of_the_image_gives_its_volume_owner_and_mode(
    rl: Rl, registry: Registry, tmp_path: Path
) -> None:
    data = tarfile.TarInfo("data")
    data.type, data.mode, data.uid, data.gid = tarfile.DIRTYPE, 0o2750, 33, 34
    images.busybox(tmp_path, {"1": data}, {"Volumes": {"/data": {}}})
    registry.push(f"oci:{tmp_path}:latest", "tests/empty-volume")
    name = f"{registry.host}/tests/empty-volume"
    look = ("stat", "-c", "%u:%g %a", "/data")
    assert out(rl, name, *look) == "33:34 2750\n"
    out(rl, "-v", "later:/data", name, "chmod", "700", "/data")
    # Somebody has made it his own.
    assert out(rl, "-v", "later:/data", name, *look) == "33:34 700\n"
    rl("volume", "rm", "later")


def test_relative_source_and_the_options_of_podman_are_understood(rl: Rl, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    script = "grep ' /v ' /proc/self/mounts; touch /v/made"
    done = rl(
        *RUN, "-v", "./sub:/v:rw,z,noexec,nosuid,rslave,cached", "alpine", "sh", "-c", script,
        cwd=tmp_path,
    )  # fmt: skip
    assert {"noexec", "nosuid", "rw"} <= set(done.stdout.split()[3].split(","))
    assert (tmp_path / "sub/made").exists()
    overlaid = rl(*RUN, "-v", f"{tmp_path}:/v:O", "alpine", "true", check=False)
    assert "(O) is not here yet" in overlaid.stderr


@pytest.mark.parametrize("option", [("-v", "{}:/v"), ("--mount", "type=bind,src={},dst=/v")])
def test_missing_bind_source_is_an_error_and_not_made(
    rl: Rl, tmp_path: Path, option: tuple[str, str]
) -> None:
    missing = tmp_path / "missing"
    done = rl(*RUN, option[0], option[1].format(missing), "alpine", "true", check=False)
    assert done.returncode == 125
    assert done.stderr == (
        f"rl: cannot mount {missing}: no such file or directory (create it first)\n"
    )
    assert not missing.exists()


def test_source_with_a_comma_is_quoted_as_in_csv(rl: Rl, tmp_path: Path) -> None:
    (tmp_path / "a,b").mkdir()
    mount = f'type=bind,"source={tmp_path}/a,b",target=/v'
    out(rl, "--mount", mount, "alpine", "touch", "/v/x")
    assert (tmp_path / "a,b/x").exists()


# Links that would lead out


def test_link_that_the_user_names_is_followed_once(rl: Rl, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "name").write_text(name)
    (tmp_path / "link").symlink_to("one")
    rl("create", "--name", "linked", "-v", f"{tmp_path}/link:/v", "alpine", "cat", "/v/name")
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to("two")
    assert rl("start", "-a", "linked").stdout == "one"
    rl("rm", "linked")


def test_container_that_replaces_the_source_of_its_bind_by_a_link_gets_nothing_more(
    rl: Rl, tmp_path: Path
) -> None:
    secret, data = tmp_path / "secret", tmp_path / "data"
    (data / "sub/deep").mkdir(parents=True)
    (secret / "deep").mkdir(parents=True)
    (secret / "deep/f").write_text("secret\n")
    script = f"cat /deep/f; rm -r /data/sub; ln -s {secret} /data/sub"
    mounts = ("-v", f"{data}:/data", "-v", f"{data}/sub/deep:/deep")
    rl("create", "--name", "fox", *mounts, "alpine", "sh", "-c", script)
    first = rl("start", "-a", "fox", check=False)
    assert "No such file or directory" in first.stderr
    again = rl("start", "-a", "fox", check=False)
    assert again.returncode == 125
    assert "has become a symlink since the container was made" in again.stderr
    assert "secret" not in again.stdout
    following = """
from rootless.kernel import mounts
open_source = mounts.open_source
mounts.open_source = lambda path, *, links: open_source(path, links=True)
"""
    done = changed(rl, following)("start", "-a", "fox", check=False)
    assert done.stdout == "secret\n", done.stderr
    rl("rm", "fox")


def test_volume_whose_content_is_links_to_the_host_leads_nowhere(rl: Rl, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret\n")
    rl("volume", "create", "trap")
    volume = rl.root / "volumes/trap/_data"
    (volume / "link").symlink_to(secret)
    done = rl(*RUN, "-v", "trap:/v", "alpine", "cat", "/v/link", check=False)
    assert "No such file" in done.stderr
    # Nor does it for what is mounted below it, or for what is copied or removed.
    (volume / "dir").symlink_to(tmp_path)

    def attack(rl: Rl) -> bool:
        rl(*RUN, "-v", "trap:/v", "--tmpfs", "/v/dir/made", "alpine", "true", check=False)
        return (tmp_path / "made").exists()

    assert not attack(rl)
    naive = """
import os
from rootless.kernel import mounts
mounts.open_in_root = lambda root, path, flags=os.O_PATH: os.open(
    f"/proc/self/fd/{root}/{path}", flags | os.O_CLOEXEC)
"""
    assert attack(changed(rl, naive))
    rl("volume", "rm", "trap")
    assert secret.read_text() == "secret\n"
    assert sorted(os.listdir(tmp_path)) == ["made", "secret"]


# U


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """Return a directory that may be given away: it is removed whoever owns it."""
    directory = tmp_path / "tree"
    directory.mkdir()
    yield directory
    leaks.remove_tree(directory)


def test_given_source_belongs_to_the_containers_user(rl: Rl, tree: Path) -> None:
    given = tree / "given"
    (given / "sub").mkdir(parents=True)
    file = given / "sub/file"
    file.write_text("x")
    script = "stat -c %u:%g /v /v/sub /v/sub/file; echo more >> /v/sub/file"
    found = out(rl, "-u", "33:34", "-v", f"{given}:/v:U", "alpine", "sh", "-c", script)
    assert found.split() == ["33:34"] * 3
    assert file.stat().st_uid not in (os.getuid(), 33)
    # And back.
    out(rl, "-v", f"{given}:/v:U", "alpine", "true")
    assert file.stat().st_uid == os.getuid()
    mount = f"type=bind,src={file},dst=/f,chown=true"
    assert out(rl, "-u", "33", "--mount", mount, "alpine", "stat", "-c", "%u", "/f") == "33\n"
    out(rl, "-v", f"{given}:/v:U", "alpine", "true")


def test_giving_follows_no_link_and_leaves_other_mounts_alone(rl: Rl, tree: Path) -> None:
    kept = tree / "kept"
    kept.mkdir()
    (kept / "file").touch()

    def attack(rl: Rl, name: str, **more: str) -> bool:
        given = tree / name
        given.mkdir()
        links = {"home": str(kept), "file": str(kept / "file"), **more}
        for link, target in links.items():
            (given / link).symlink_to(target)
        out(rl, "-u", "33", "-v", f"{given}:/v:U", "alpine", "true")
        return os.getuid() not in (kept.stat().st_uid, (kept / "file").stat().st_uid)

    assert not attack(rl, "given", etc="/etc")
    assert {kept.stat().st_uid, (kept / "file").stat().st_uid} == {os.getuid()}
    assert (tree / "given/home").lstat().st_uid != os.getuid()
    following = """
import os
from rootless.containers import owner
owner._change = lambda entry, uid, gid: os.chown(entry.name, uid, gid, dir_fd=entry.directory)
"""
    assert attack(changed(rl, following), "again")


def test_home_is_not_given_away(rl: Rl) -> None:
    home = Path(rl.environment["HOME"])
    for source in (home, home.parent, Path("/")):
        done = rl(*RUN, "-u", "33", "-v", f"{source}:/v:U", "alpine", "true", check=False)
        assert done.returncode == 125
        assert "your home is in it" in done.stderr
    assert home.stat().st_uid == os.getuid()


def test_what_belongs_to_somebody_else_is_not_given(rl: Rl) -> None:
    done = rl(*RUN, "-u", "33", "-v", "/usr/share/doc:/v:U", "alpine", "true", check=False)
    assert done.returncode == 125
    assert "belongs to neither you nor the container" in done.stderr
    assert stat.S_IMODE(Path("/usr/share/doc").stat().st_mode) == 0o755


def test_a_tree_is_given_whole_or_not_at_all(rl: Rl, tree: Path) -> None:
    given = tree / "given"
    (given / "sub").mkdir(parents=True)
    (given / "sub").chmod(0o777)
    (given / "first").touch()
    out(rl, "-u", "33:33", "-v", f"{given}:/v:U", "alpine", "true")
    (given / "sub/\x1bours").touch()
    owners = [path.stat()[4:6] for path in (given, given / "first", given / "sub")]
    refused = ["--userns", "nomap", "-u", "40:40", "-v", f"{given}:/v:U", "alpine", "true"]
    done = rl(*RUN, *refused, check=False)
    assert done.returncode == 125
    assert r"'/v/sub/\x1bours' belongs to neither you nor the container" in done.stderr
    assert [path.stat()[4:6] for path in (given, given / "first", given / "sub")] == owners
    # What belongs to nobody can be given, for the container has such a user.
    (given / "sub/\x1bours").unlink()
    out(rl, "-u", "65534:65534", "-v", f"{given}:/v:U", "alpine", "true")
    out(rl, "-u", "33", "-v", f"{given}:/v:U", "alpine", "sh", "-c", "touch /v/first")
    out(rl, "-v", f"{given}:/v:U", "alpine", "true")
    assert given.stat().st_uid == os.getuid()


def test_a_deep_tree_is_given_whole(rl: Rl, tree: Path) -> None:
    script = "cd $1; for i in $(seq 500); do mkdir d; cd d; done; touch end"
    subprocess.run(["sh", "-c", script, "sh", tree], check=True)
    script = "cd /v; while cd d 2>/dev/null; do :; done; stat -c %u end"
    assert out(rl, "-u", "33", "-v", f"{tree}:/v:U", "alpine", "sh", "-c", script) == "33\n"
    out(rl, "-v", f"{tree}:/v:U", "alpine", "true")
