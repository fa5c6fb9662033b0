"""Images and containers as rows and as what inspect prints, without a store."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rootless.cli import container_inspect, container_view, image_view, usernet_view
from rootless.cli.info import file_system
from rootless.cli.template import Template
from rootless.containers.request import Mount, Request
from rootless.containers.spec import Place, build
from rootless.containers.state import Process, State
from rootless.containers.store import Container
from rootless.errors import RlError
from rootless.images.manifest import ImageConfig
from rootless.images.platform import Platform
from rootless.images.reference import Reference
from rootless.images.store import Image
from rootless.kernel.userns import IdMap, Maps
from rootless.networks.ports import Port
from rootless.networks.request import NetworkRequest

ROOT = Path("/state")
NOW = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
ID = "4c01db0b339c" + "0" * 52
DIGEST = "sha256:" + "d" * 64

CONFIG = ImageConfig(
    platform=Platform("linux", "arm64", ""),
    diff_ids=("sha256:" + "1" * 64, "sha256:" + "2" * 64),
    env=("PATH=/bin",),
    entrypoint=("/entry",),
    cmd=("serve",),
    working_dir="/srv",
    user="www",
    stop_signal="SIGQUIT",
    volumes=("/var/lib/data",),
    exposed_ports=("80/tcp",),
    labels={"com.example.tier": "front"},
    created="2026-01-01T12:00:00Z",
)
IMAGE = Image(
    id="sha256:" + "a" * 64,
    digest=DIGEST,
    names=(
        "docker.io/library/web:1",
        "docker.io/library/web:latest",
        f"docker.io/library/web@{DIGEST}",
        "localhost:5000/team/web:1",
    ),
    config=CONFIG,
    size=7_800_000,
    layers=CONFIG.diff_ids,
)


def make_container(request: Request, **state: Any) -> Container:
    place = Place(
        bundle=f"{ROOT}/containers/{ID}",
        maps=Maps((IdMap(0, 1000, 1),), (IdMap(0, 1000, 1),)),
        hostname="box",
        init_program=None,
        nofile=(1024, 4096),
    )
    sources = {"tmpfs": "", "bind": "{}", "volume": f"{ROOT}/volumes/{{}}/_data"}
    mounts = (*request.mounts, Mount("volume", "f" * 64, "/var/lib/data"))
    paired = [(mount, sources[mount.kind].format(mount.source)) for mount in mounts]
    return Container(
        id=ID,
        path=ROOT / "containers" / ID,
        config=json.loads(json.dumps(build(request, IMAGE.id, CONFIG, place, paired))),
        state=State(name="web_1", created_at="2026-01-02T10:59:59.5Z")._replace(**state),
    )


@pytest.fixture
def container() -> Container:
    return make_container(
        Request(
            image="web",
            command=("serve", "--port", "80"),
            env=("A=1",),
            mounts=(
                Mount("bind", "/home/me/src", "/src", ("ro", "rslave")),
                Mount("volume", "cache", "/cache"),
                Mount("tmpfs", "", "/scratch", ("size=1m",)),
            ),
            hostname="box",
            network="none",
            labels={"a": "b"},
            terminal=True,
            interactive=True,
            auto_remove=True,
        ),
        status="running",
        started_at="2026-01-02T11:58:00Z",
        init=Process(4242, 1, "boot"),
    )


def test_ps_shows_a_container_as_docker_does(container: Container) -> None:
    row = container_view.row(container, truncate=True, now=NOW)
    assert row.pop("Label")("com.example.tier") == "front"
    assert row.pop("CreatedAt").startswith("2026-01-0")
    assert row == {
        "ID": "4c01db0b339c",
        "Names": "web_1",
        "Image": "web",
        "Command": '"/entry serve --port…"',
        "RunningFor": "About an hour ago",
        "Status": "Up 2 minutes",
        "State": "running",
        "Ports": "80/tcp",
        "Labels": "a=b,com.example.tier=front",
        "LocalVolumes": "2",
        "Mounts": "/home/me/src,cache,ffffffffffffff…",
        "Networks": "none",
        "Size": "0B",
    }


def test_ps_does_not_shorten_when_told_so(container: Container) -> None:
    row = container_view.row(container, truncate=False, now=NOW)
    assert row["ID"] == ID
    assert row["Command"] == '"/entry serve --port 80"'
    assert row["Mounts"].endswith("f" * 64)


def test_every_field_of_a_row_has_a_title(container: Container) -> None:
    row = container_view.row(container, truncate=True, now=NOW)
    assert set(row) == set(container_view.TITLES)
    (first, *_) = image_view.rows(IMAGE, patterns=[], digests=True, truncate=True, now=NOW)
    assert set(first) == set(image_view.TITLES)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({}, "Created"),
        ({"status": "running", "started_at": "2026-01-02T11:59:58Z"}, "Up 2 seconds"),
        (
            {"status": "exited", "exit_code": 3, "finished_at": "2026-01-02T09:00:00Z"},
            "Exited (3) 3 hours ago",
        ),
        ({"status": "exited", "exit_code": 255}, "Exited (255)"),
    ],
)
def test_a_status_is_dockers_sentence(state: dict[str, Any], words: str) -> None:
    container = make_container(Request(image="web"), **state)
    assert container_view.status(container, NOW) == words


def test_an_image_given_by_its_id_is_shown_short() -> None:
    container = make_container(Request(image="sha256:" + "a" * 64))
    assert container_view.row(container, truncate=True, now=NOW)["Image"] == "a" * 12
    assert container_view.row(container, truncate=False, now=NOW)["Image"] == IMAGE.id


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, True),
        ({"name": ["eb_"]}, True),
        ({"name": ["^/web_1$"]}, True),
        ({"name": ["^web"]}, True),
        ({"name": ["b$"]}, False),
        ({"name": ["other", "web"]}, True),
        ({"id": ["4c01"]}, True),
        ({"id": ["c01d"]}, False),
        ({"status": ["running", "exited"]}, True),
        ({"status": ["exited"]}, False),
        ({"exited": ["0"]}, False),
        ({"label": ["a=b", "com.example.tier"]}, True),
        ({"label": ["a=c"]}, False),
        ({"ancestor": ["docker.io/library/web:latest"]}, True),
        ({"ancestor": ["web:1"]}, False),
        ({"name": ["web"], "status": ["exited"]}, False),
    ],
)
def test_filters_choose_containers(
    container: Container, wanted: dict[str, list[str]], found: bool
) -> None:
    assert container_view.selected(container, wanted, frozenset()) == found


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"expose": ["80"]}, True),
        ({"expose": ["79-81/tcp"]}, True),
        ({"expose": ["80/udp"]}, False),
        ({"publish": ["80"]}, False),
        ({"publish": ["53/udp"]}, True),
        ({"expose": ["53/udp"]}, True),
        ({"publish": ["5353/udp"]}, False),
        ({"publish": ["80"], "expose": ["80"]}, True),
    ],
)
def test_ports_that_filters_choose_are_the_containers_own(
    wanted: dict[str, list[str]], found: bool
) -> None:
    net = NetworkRequest(published=(Port(53, "udp", "", 5353),))
    container = make_container(Request(image="web", network="pasta", net=net))
    assert container_view.selected(container, wanted, frozenset()) == found


def test_an_ancestor_is_also_found_by_the_image_that_the_name_means_now(
    container: Container,
) -> None:
    wanted = {"ancestor": ["renamed"]}
    assert container_view.selected(container, wanted, frozenset([IMAGE.id]))


@pytest.mark.parametrize(
    "wanted", [{"status": ["up"]}, {"exited": ["x"]}, {"name": ["("]}, {"publish": ["x"]}]
)
def test_a_filter_with_an_impossible_value_is_refused(
    container: Container, wanted: dict[str, list[str]]
) -> None:
    with pytest.raises(RlError, match=r"invalid (filter|port)"):
        container_view.selected(container, wanted, frozenset())


def test_inspect_tells_what_a_container_was_made_from(container: Container) -> None:
    value = container_inspect.inspect(container)
    assert value["Id"] == ID
    assert (value["Path"], value["Args"]) == ("/entry", ["serve", "--port", "80"])
    assert value["Name"] == "/web_1"
    assert value["Image"] == IMAGE.id
    assert value["State"] == {
        "Status": "running",
        "Running": True,
        "Paused": False,
        "Restarting": False,
        "OOMKilled": False,
        "Dead": False,
        "Pid": 4242,
        "ExitCode": 0,
        "Error": "",
        "StartedAt": "2026-01-02T11:58:00Z",
        "FinishedAt": "0001-01-01T00:00:00Z",
    }
    config = value["Config"]
    assert config["Hostname"] == "box"
    assert config["User"] == "www"
    assert {"PATH=/bin", "A=1"} <= set(config["Env"])
    assert (config["Entrypoint"], config["Cmd"]) == (["/entry"], ["serve", "--port", "80"])
    assert (config["Tty"], config["OpenStdin"]) == (True, True)
    assert config["WorkingDir"] == "/srv"
    assert config["Labels"] == {"a": "b", "com.example.tier": "front"}
    assert config["Volumes"] == {"/cache": {}, "/var/lib/data": {}}
    assert config["StopSignal"] == "SIGQUIT"
    host = value["HostConfig"]
    assert host["NetworkMode"] == "none"
    assert host["AutoRemove"] is True
    assert host["ReadonlyRootfs"] is False
    assert host["Tmpfs"] == {"/scratch": "size=1m"}
    assert set(host["Binds"]) == {
        "/home/me/src:/src:ro",
        "cache:/cache:rw",
        f"{'f' * 64}:/var/lib/data:rw",
    }
    mounts = {mount["Destination"]: mount for mount in value["Mounts"]}
    assert set(mounts) == {"/src", "/cache", "/scratch", "/var/lib/data"}
    assert mounts["/src"] == {
        "Type": "bind",
        "Source": "/home/me/src",
        "Destination": "/src",
        "Mode": "",
        "RW": False,
        "Propagation": "rslave",
    }
    assert (mounts["/cache"]["Name"], mounts["/cache"]["Propagation"]) == ("cache", "rprivate")
    assert mounts["/cache"]["Source"] == "/state/volumes/cache/_data"
    layers = value["GraphDriver"]["Data"]["LowerDir"].split(":")
    assert layers == [f"/state/layers/{'2' * 64}", f"/state/layers/{'1' * 64}"]


def test_every_mount_has_the_fields_of_dockers_even_if_they_are_empty(container: Container) -> None:
    template = Template("{{range .Mounts}}{{.Destination}} <{{.Name}}> <{{.Driver}}>;{{end}}")
    shown = template.render(container_inspect.inspect(container)).split(";")
    assert {"/src <> <>", "/scratch <> <>", "/cache <cache> <local>"} <= set(shown)


@pytest.mark.parametrize(
    ("mode", "network"),
    [
        ("pasta", "bridge"),
        ("slirp4netns", "bridge"),
        ("pasta:--mtu,1500", "bridge"),
        ("host", "host"),
        ("none", "none"),
        ("container:box", None),
    ],
)
def test_network_of_a_container_is_one_of_those_that_are_listed(
    mode: str, network: str | None
) -> None:
    running = {"status": "running", "init": Process(4242, 1, "boot")}
    container = make_container(Request(image="web", network=mode), **running)
    settings = container_inspect.inspect(container)["NetworkSettings"]
    assert settings["SandboxKey"] == "/proc/4242/ns/net"
    assert {"Bridge", "SandboxID", "Ports", "HairpinMode", "EndpointID"} <= set(settings)
    ip, prefix, gateway = ("10.0.2.100", 24, "10.0.2.2") if network == "bridge" else ("", 0, "")
    assert (settings["IPAddress"], settings["Gateway"]) == (ip, gateway)
    assert list(settings["Networks"]) == ([network] if network else [])
    assert container_view.row(container, truncate=True, now=NOW)["Networks"] == (network or mode)
    assert container_view.selected(container, {"network": [mode]}, frozenset())
    if not network:
        return
    assert container_view.selected(container, {"network": [network]}, frozenset())
    built_in = usernet_view.BuiltIn(network)
    assert settings["Networks"][network] == {
        **dict.fromkeys(("IPAMConfig", "Links", "Aliases", "DriverOpts", "DNSNames")),
        **dict.fromkeys(("MacAddress", "EndpointID", "IPv6Gateway", "GlobalIPv6Address"), ""),
        "GlobalIPv6PrefixLen": 0,
        "NetworkID": built_in.id,
        "Gateway": gateway,
        "IPAddress": ip,
        "IPPrefixLen": prefix,
    }
    (end,) = usernet_view.inspect(built_in, [container])["Containers"].values()
    assert (end["Name"], end["IPv4Address"]) == ("web_1", f"{ip}/24" if ip else "")


def test_inspect_of_a_container_that_ended_names_no_process() -> None:
    container = make_container(
        Request(image="web"), status="exited", exit_code=137, init=Process(4242, 1, "boot")
    )
    state = container_inspect.inspect(container)["State"]
    assert (state["Running"], state["Pid"], state["ExitCode"]) == (False, 0, 137)


def names(image: Image = IMAGE, *patterns: str, digests: bool = False) -> list[tuple[str, ...]]:
    rows = image_view.rows(image, patterns=list(patterns), digests=digests, truncate=True, now=NOW)
    return [(row["Repository"], row["Tag"], row["Digest"][:9]) for row in rows]


def test_images_has_a_line_for_each_tag() -> None:
    assert names() == [
        ("web", "1", "<none>"),
        ("web", "latest", "<none>"),
        ("localhost:5000/team/web", "1", "<none>"),
    ]
    assert names(digests=True) == [
        ("web", "1", "sha256:dd"),
        ("web", "latest", "sha256:dd"),
        ("localhost:5000/team/web", "1", "<none>"),
    ]


def test_an_image_without_a_tag_or_a_name_is_shown_all_the_same() -> None:
    by_digest = IMAGE._replace(names=(f"docker.io/library/web@{DIGEST}",))
    assert names(by_digest) == [("web", "<none>", "<none>")]
    assert names(by_digest, digests=True) == [("web", "<none>", "sha256:dd")]
    nameless = IMAGE._replace(names=())
    assert names(nameless) == [("<none>", "<none>", "<none>")]
    assert names(nameless, "web") == []


def test_a_line_of_images_has_dockers_words() -> None:
    row = next(image_view.rows(IMAGE, patterns=[], digests=False, truncate=True, now=NOW))
    assert (row["ID"], row["CreatedSince"], row["Size"]) == ("a" * 12, "24 hours ago", "7.8MB")
    row = next(image_view.rows(IMAGE, patterns=[], digests=False, truncate=False, now=NOW))
    assert row["ID"] == IMAGE.id


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("web", True),
        ("web:1", True),
        ("web:2", False),
        ("w*", True),
        ("web:*", True),
        ("docker.io/library/web", True),
        ("docker.io/library/web:1", True),
        ("docker.io/library/web:2", False),
        ("*/web", False),
        ("eb", False),
        ("WEB", False),
    ],
)
def test_a_pattern_matches_names_as_people_type_them(pattern: str, found: bool) -> None:
    assert image_view.matches(Reference.parse("web:1"), pattern) == found


def test_a_star_stays_within_a_part_of_a_name() -> None:
    reference = Reference.parse("localhost:5000/team/web:1")
    assert image_view.matches(reference, "localhost:5000/*/web")
    assert not image_view.matches(reference, "localhost:5000/*")


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, True),
        ({"dangling": ["true"]}, False),
        ({"dangling": ["false"]}, True),
        ({"label": ["com.example.tier=front"]}, True),
        ({"label": ["com.example.tier=back"]}, False),
    ],
)
def test_filters_choose_images(wanted: dict[str, list[str]], found: bool) -> None:
    assert image_view.selected(IMAGE, wanted) == found


def test_an_image_without_a_tag_is_dangling() -> None:
    by_digest = IMAGE._replace(names=(f"docker.io/library/web@{DIGEST}",))
    for image in (by_digest, IMAGE._replace(names=())):
        assert image_view.selected(image, {"dangling": ["true"]})
        assert not image_view.selected(image, {"dangling": ["0"]})


def test_dangling_is_true_or_false() -> None:
    with pytest.raises(RlError, match="it is true or false"):
        image_view.selected(IMAGE, {"dangling": ["maybe"]})


def test_inspect_tells_how_an_image_runs() -> None:
    value = image_view.inspect(IMAGE, ROOT)
    assert value["Id"] == IMAGE.id
    assert value["RepoTags"] == ["web:1", "web:latest", "localhost:5000/team/web:1"]
    assert value["RepoDigests"] == [f"web@{DIGEST}"]
    assert (value["Os"], value["Architecture"]) == ("linux", "arm64")
    assert value["RootFS"] == {"Type": "layers", "Layers": list(CONFIG.diff_ids)}
    config = value["Config"]
    assert (config["Entrypoint"], config["Cmd"]) == (["/entry"], ["serve"])
    assert config["ExposedPorts"] == {"80/tcp": {}}
    assert config["Volumes"] == {"/var/lib/data": {}}
    assert config["Labels"] == {"com.example.tier": "front"}
    json.dumps(value)


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/home/me/rl", "nfs4"), ("/homes", "ext4"), ("/home", "nfs4"), ("/var/tmp", "ext4")],
)
def test_the_file_system_of_a_directory_is_that_of_its_mount(path: str, kind: str) -> None:
    mountinfo = (
        "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
        "40 22 0:30 / /home rw shared:9 master:1 - nfs4 server:/home rw\n"
    )
    assert file_system(path, mountinfo) == kind
