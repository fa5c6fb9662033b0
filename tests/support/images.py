"""The images that the tests run: busybox, a Debian that can install packages.

Makes OCI layouts in directories it is given. Debian is made once by mmdebstrap, without root, and
kept in a cache. Used by the fixtures.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.machinery
import importlib.util
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.support.oci import Layer, tar_of, write_layout

PACKAGES = ("python3-minimal", "libpython3-stdlib", "nginx-light", "redis-server")
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def busybox_layer() -> bytes:
    """Return a tar archive of the root that scripts/embedded-image makes, of static busybox."""
    path = Path(__file__).parents[2] / "scripts/embedded-image"
    loader = importlib.machinery.SourceFileLoader("embedded_image", str(path))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    layer: bytes = module.busybox_layer()
    return layer


def busybox(
    directory: Path,
    files: Mapping[str, bytes | str | tarfile.TarInfo] | None = None,
    config: Mapping[str, object] | None = None,
) -> None:
    """Write an image of the host's static busybox in two layers: programs, then ``files``."""
    files = files or {"etc/": b"", "etc/motd": "hello from busybox\n"}
    layers = [Layer(busybox_layer(), "gzip"), Layer(tar_of(files), "zstd")]
    write_layout(directory, layers, {"Env": [PATH], "Cmd": ["/bin/sh"], **(config or {})})


def debian(cache: Path) -> Path:
    """Return the layout of a Debian (the host's release) with apt and Python, in three layers.

    A gzip layer with the system; a zstd layer that changes it: the host's way to the package
    mirrors and its certificates; a plain tar layer that removes: a whiteout, an opaque directory.
    """
    sources, options = _apt_sources(), _apt_options()
    suite = _release()
    ingredients = [suite, *PACKAGES, *options, *(source.read_text() for source in sources)]
    # The recipe counts as well: who changes it gets a new image.
    ingredients.append(Path(__file__).read_text())
    key = hashlib.sha256("\0".join(ingredients).encode()).hexdigest()[:16]
    layout = cache / f"debian-{key}"
    if layout.exists():
        return layout
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "debian.lock").open("a") as lock, tempfile.TemporaryDirectory(dir=cache) as work:
        # One session makes it, the others wait for it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if layout.exists():
            return layout
        made = Path(work) / "layout"
        write_layout(
            made,
            [
                Layer(_bootstrap(Path(work), suite, sources, options), "gzip"),
                Layer(tar_of(_additions(options)), "zstd"),
                Layer(tar_of(_removals()), "none"),
            ],
            {"Env": [PATH, "DEBIAN_FRONTEND=noninteractive"], "Cmd": ["bash"]},
        )
        made.rename(layout)
    return layout


def _bootstrap(work: Path, suite: str, sources: list[Path], options: list[str]) -> bytes:
    archive = work / "debian.tar"
    # Devices cannot be made without root, and a container brings its own /dev.
    command = ["mmdebstrap", "--mode=unshare", "--variant=minbase", "--quiet", "--skip=output/dev"]
    command.append("--include=" + ",".join(PACKAGES))
    command += [f"--aptopt={option}" for option in ('Acquire::Retries "5"', *options)]
    subprocess.run(
        [*command, suite, str(archive), *map(str, sources)],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return archive.read_bytes()


def _additions(options: list[str]) -> dict[str, bytes | str]:
    # With their directories: what an archive leaves out gets the time of its unpacking.
    parents = ("etc", "etc/apt", "etc/apt/apt.conf.d", "etc/ssl", "etc/ssl/certs", "opt")
    files: dict[str, bytes | str] = {f"{name}/": b"" for name in (*parents, "opt/kept")}
    files |= {
        "opt/emptied/": b"",
        "etc/apt/apt.conf.d/90host": "".join(f"{option};\n" for option in options),
        "opt/kept/old": "from the second layer\n",
        "opt/emptied/old": "hidden by the opaque directory of the third layer\n",
        "opt/removed": "hidden by the whiteout of the third layer\n",
    }
    certificates = Path("/etc/ssl/certs/ca-certificates.crt")
    if certificates.exists():
        files["etc/ssl/certs/ca-certificates.crt"] = certificates.read_bytes()
    return files


def _removals() -> dict[str, bytes | str]:
    return {
        "opt/": b"",
        "opt/.wh.removed": b"",
        "opt/emptied/": b"",
        "opt/emptied/.wh..wh..opq": b"",
        "opt/emptied/new": "from the third layer\n",
    }


def _release() -> str:
    for line in Path("/etc/os-release").read_text().splitlines():
        name, _, value = line.partition("=")
        if name == "VERSION_CODENAME":
            return value.strip('"')
    raise RuntimeError("/etc/os-release has no VERSION_CODENAME: the tests need a Debian host")


def _apt_sources() -> list[Path]:
    """Return the files that name the distribution's own mirrors, not those of third parties."""
    directory = Path("/etc/apt/sources.list.d")
    files = [Path("/etc/apt/sources.list"), directory / "debian.sources"]
    files.append(directory / "ubuntu.sources")
    return [file for file in files if file.exists() and file.read_text().strip()]


def _apt_options() -> list[str]:
    """Return how the host's apt reaches its mirrors: proxies and certificates."""
    dump = subprocess.run(["apt-config", "dump"], check=True, stdout=subprocess.PIPE, text=True)
    options = [
        line.rstrip(";")
        for line in dump.stdout.splitlines()
        if line.startswith(("Acquire::http::", "Acquire::https::")) and not line.endswith('"";')
    ]
    for scheme in "http", "https":
        proxy = os.environ.get(f"{scheme}_proxy")
        if proxy:
            options.append(f'Acquire::{scheme}::Proxy "{proxy}"')
    return options
