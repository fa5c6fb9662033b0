"""Services of a distribution, run as a person runs them: nginx and Redis of Debian."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pexpect
import pytest

from tests.support import services as recipes
from tests.support.registry import Registry
from tests.support.runner import Rl
from tests.support.waiting import PATIENCE

HOST = "127.0.0.1"
LARGE = 64 << 20
"""Bytes that no buffer between a server and its client takes at once."""


@pytest.fixture(scope="module")
def services(area: Path, rl: Rl, registry: Registry, debian_layout: Path) -> Rl:
    """Return the command with the images nginx and redis at hand, a layer each on Debian."""
    for make in recipes.nginx, recipes.redis:
        layout = area / make.__name__
        make(debian_layout, layout)
        registry.push(f"oci:{layout}:latest", f"library/{make.__name__}")
        rl("pull", "-q", make.__name__)
    return rl


@contextmanager
def web_server(rl: Rl, *options: str) -> Iterator[str]:
    """Run nginx in a container, published on a port that was chosen; its name is web."""
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    rl("run", "-d", "--name", "web", "-p", f"{HOST}:{port}:80", *options, "nginx")
    try:
        rl("wait", "--condition", "healthy", "web")
        yield "web"
    finally:
        rl("rm", "-f", "web")


@pytest.fixture
def web(services: Rl) -> Iterator[str]:
    """Return the name of a container in which nginx runs."""
    with web_server(services) as name:
        yield name


@pytest.fixture
def cache(services: Rl) -> Iterator[str]:
    """Return the name of a container in which Redis runs, with its data in a volume."""
    start_redis(services)
    yield "cache"
    services("rm", "-f", "-v", "cache")
    services("volume", "rm", "data")


def start_redis(rl: Rl, *more: str) -> None:
    options = ("-p", f"{HOST}::6379", "-v", "data:/var/lib/redis")
    rl("run", "-d", "--name", "cache", *options, *more, "redis")
    rl("wait", "--condition", "healthy", "cache")


def published(rl: Rl, name: str) -> int:
    """Return the port of the host that leads to a container's only one."""
    return int(rl("port", name).stdout.rpartition(":")[2])


def get(rl: Rl, path: str = "/") -> str:
    """Return what nginx answers to the host."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(f"http://{HOST}:{published(rl, 'web')}{path}", timeout=PATIENCE) as answer:
        return str(answer.read().decode())


def ask(rl: Rl, question: str) -> str:
    """Return the line that Redis answers to the host."""
    with socket.create_connection((HOST, published(rl, "cache")), timeout=PATIENCE) as connection:
        connection.sendall(f"{question}\r\n".encode())
        with connection.makefile() as answer:
            return answer.readline().rstrip()


def state(rl: Rl, name: str) -> tuple[str, int]:
    found = json.loads(rl("inspect", name).stdout)[0]["State"]
    return found["Status"], found["ExitCode"]


def test_web_server_answers_the_host_and_its_log_is_read(services: Rl, web: str) -> None:
    assert "<h1>Welcome to nginx!</h1>" in get(services)
    services("exec", web, "mkdir", "/var/www/html/closed")
    with pytest.raises(urllib.error.HTTPError, match="403"):
        get(services, "/closed/")
    done = services("logs", web)
    assert '"GET /closed/ HTTP/1.1" 403' in done.stdout
    assert 'directory index of "/var/www/html/closed/" is forbidden' in done.stderr
    services("exec", web, "sh", "-c", "echo changed > /var/www/html/index.html")
    port = published(services, web)
    services("restart", web)
    services("wait", "--condition", "healthy", web)
    assert published(services, web) == port
    assert get(services) == "changed\n"
    assert "(healthy)" in services("ps", "--format", "{{.Names}} {{.Status}}").stdout


@pytest.mark.parametrize(("options", "whole"), [((), True), (("--stop-signal", "TERM"), False)])
def test_web_server_stops_by_the_signal_of_its_image_which_lets_it_finish(
    services: Rl, options: tuple[str, ...], whole: bool
) -> None:
    with web_server(services, *options) as web:
        services("exec", web, "truncate", "-s", str(LARGE), "/var/www/html/large")
        address = (HOST, published(services, web))
        with (
            socket.create_connection(address, timeout=PATIENCE) as client,
            client.makefile("rb") as answer,
        ):
            client.sendall(b"GET /large HTTP/1.0\r\n\r\n")
            assert b"200" in answer.readline()
            with services.start("stop", "-t", "300", web, stdout=subprocess.DEVNULL) as stopping:
                wait_until_refused(services, web)
                # What is still on its way when a container ends is lost with its network.
                with suppress(ConnectionError):
                    answer.read()
        assert stopping.returncode == 0
        assert state(services, web) == ("exited", 0)
        served = f'"GET /large HTTP/1.0" 200 {LARGE} '
        assert (served in services("logs", web).stdout) == whole


def wait_until_refused(rl: Rl, name: str) -> None:
    """Wait until nginx has closed the sockets that it listens on, or ended."""
    listening = "grep -q ' 0A ' /proc/net/tcp"
    deadline = time.monotonic() + PATIENCE
    while rl("exec", name, "sh", "-c", listening, check=False).returncode == 0:
        assert time.monotonic() < deadline


def test_services_are_reached_over_localhost_and_looked_into_by_containers_that_join_them(
    services: Rl, web: str, cache: str
) -> None:
    def joined(kind: str, name: str, *command: str) -> str:
        return services("run", "--rm", f"--{kind}", f"container:{name}", *command).stdout

    page = "import urllib.request as u; print(u.urlopen('http://localhost').read().decode())"
    assert "<h1>Welcome to nginx!</h1>" in joined("network", web, "nginx", "python3", "-c", page)
    assert joined("network", cache, "redis", "redis-cli", "ping") == "PONG\n"
    assert joined("pid", web, "alpine", "cat", "/proc/1/cmdline").startswith("nginx: master")


def test_database_keeps_its_data_over_a_restart_and_in_another_container(
    services: Rl, cache: str
) -> None:
    assert ask(services, "SET greeting hello") == "+OK"
    services("restart", cache)
    services("wait", "--condition", "healthy", cache)
    assert ask(services, "STRLEN greeting") == ":5"
    services("stop", "-t", "300", cache)
    assert state(services, cache) == ("exited", 0)
    assert "User requested shutdown" in services("logs", cache).stdout
    services("rm", cache)
    start_redis(services)
    assert ask(services, "STRLEN greeting") == ":5"
    owner = services("exec", cache, "stat", "-c", "%U", "/var/lib/redis/appendonlydir").stdout
    assert owner == "redis\n"


def test_services_are_reached_by_name_from_other_containers(services: Rl) -> None:
    services("network", "create", "shop")
    on = ("--network", "shop")
    try:
        services("run", "-d", "--name", "cache", *on, "-v", "data:/var/lib/redis", "redis")
        services("run", "-d", "--name", "web", *on, "-p", f"{HOST}::80", "nginx")
        for name in "cache", "web":
            services("wait", "--condition", "healthy", name)
        client = ("run", "--rm", *on, "redis", "redis-cli", "-h", "cache")
        assert services(*client, "SET", "greeting", "hello").stdout == "OK\n"
        fetch = "import urllib.request as u; print(u.urlopen('http://web').read().decode())"
        page = services("run", "--rm", *on, "nginx", "python3", "-c", fetch).stdout
        assert "<h1>Welcome to nginx!</h1>" in page
        assert "<h1>Welcome to nginx!</h1>" in get(services)
        services("restart", "cache")
        services("wait", "--condition", "healthy", "cache")
        assert services(*client, "GET", "greeting").stdout == "hello\n"
    finally:
        services("network", "rm", "-f", "shop")
        services("volume", "rm", "-f", "data")


def test_database_is_typed_to_on_a_terminal(services: Rl, cache: str) -> None:
    terminal: pexpect.spawn[str] = pexpect.spawn(
        services.command[0], ["exec", "-it", cache, "redis-cli"],
        env=os.environ | services.environment, encoding="utf-8", timeout=PATIENCE,
    )  # fmt: skip
    prompt = "127.0.0.1:6379> "
    terminal.expect_exact(prompt)
    terminal.send("set typed yes\r")
    terminal.expect_exact("OK")
    terminal.expect_exact(prompt)
    # The arrow brings it back: what is typed is edited on a real terminal.
    terminal.send("\x1b[A")
    terminal.expect_exact("set typed yes")
    terminal.send("\r")
    terminal.expect_exact("OK")
    terminal.expect_exact(prompt)
    terminal.sendeof()
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0
    assert ask(services, "STRLEN typed") == ":3"


@pytest.fixture
def office(services: Rl) -> Iterator[str]:
    """Return the name of a network of the user's."""
    services("network", "create", "office")
    yield "office"
    services("network", "rm", "-f", "office")


def test_services_are_reached_by_name_from_a_container_on_their_network(
    services: Rl, office: str
) -> None:
    on_it = ("--network", office)

    def visit(url: str) -> str:
        script = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read(300))"
        client = ("redis", "python3", "-c", script, url)
        return services("run", "--rm", *on_it, *client, timeout=300).stdout

    def ask_by_name(*question: str) -> str:
        client = ("redis", "redis-cli", "-h", "store", *question)
        return services("run", "--rm", *on_it, *client, timeout=300).stdout.strip()

    try:
        start_redis(services, *on_it, "--network-alias", "store")
        with web_server(services, *on_it) as web:
            assert "Welcome to nginx!" in visit(f"http://{web}/")
            assert "Welcome to nginx!" in get(services)
            assert ask_by_name("SET", "greeting", "hello") == "OK"
            # Both have another life, and are found again.
            services("restart", web, "cache")
            for name in (web, "cache"):
                services("wait", "--condition", "healthy", name)
            assert "Welcome to nginx!" in visit(f"http://{web}/")
            assert ask_by_name("GET", "greeting") == "hello"
            assert ask(services, "STRLEN greeting") == ":5"
    finally:
        services("rm", "-f", "-v", "cache")
        services("volume", "rm", "-f", "data")
