"""The template language, without any command: text and values in, text out."""

from __future__ import annotations

import os
import pickle
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless.cli.template import Map, Template
from rootless.cli.template.lex import TemplateError
from rootless.cli.template.values import Struct

CONTAINER: dict[str, Any] = {
    "Id": "8dfafdbc3a40",
    "Name": "/web",
    "Args": ["-g", "daemon off;"],
    "RestartCount": 0,
    "SizeRw": None,
    "State": {"Status": "running", "Running": True, "Pid": 4242, "ExitCode": 0},
    "Config": {
        "Env": ["PATH=/usr/bin", "LANG=C"],
        "Labels": Map({"com.example.b": "2", "com.example.a": "1"}),
        "Cmd": [],
    },
    "NetworkSettings": {
        "Ports": Map({"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "443/tcp": []}),
    },
    "Mounts": [
        {"Type": "bind", "Source": "/src", "Destination": "/dst", "RW": True},
        {"Type": "volume", "Source": "/v", "Destination": "/data", "RW": False},
    ],
    "Label": {"a": "label of a"}.get,
}


def render(source: str, value: Any = CONTAINER) -> str:
    return Template(source).render(value)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        # What scripts and Docker's own documentation ask for.
        ("{{.Id}}", "8dfafdbc3a40"),
        ("{{ .State.Status }}", "running"),
        ("{{.State.Running}}", "true"),
        ("{{.State.Pid}}", "4242"),
        ("{{json .State}}", '{"Status":"running","Running":true,"Pid":4242,"ExitCode":0}'),
        ("{{json .Config.Cmd}}", "[]"),
        ("{{.Id}}: {{.Name}}", "8dfafdbc3a40: /web"),
        ('{{index .Config.Labels "com.example.a"}}', "1"),
        ('{{index .Config.Labels "absent"}}', ""),
        ("{{.Config.Labels.absent}}", "<no value>"),
        (
            '{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}',
            "8080",
        ),
        ('{{index .NetworkSettings.Ports "80/tcp" 0 "HostPort"}}', "8080"),
        (
            "{{range $p, $c := .NetworkSettings.Ports}}{{$p}}{{with $c}}={{len .}}{{end}};{{end}}",
            "443/tcp;80/tcp=1;",
        ),
        ("{{range .Mounts}}{{.Source}}:{{.Destination}} {{end}}", "/src:/dst /v:/data "),
        ("{{range .Config.Env}}{{println .}}{{end}}", "PATH=/usr/bin\nLANG=C\n"),
        ('{{join .Args " , "}}', "-g , daemon off;"),
        ('{{index (split .Id "d") 1}}', "faf"),
        ("{{upper .Name}}{{lower `ABC`}}{{title `a bc`}}", "/WEBabcA Bc"),
        ("{{truncate .Id 4}}|{{truncate .Name 99}}", "8dfa|/web"),
        ("{{pad .Name 1 2}}|{{pad `` 1 2}}|", " /web  ||"),
        ("{{slice .Name 1}} {{slice .Id 2 5}} {{slice .Args 1 2}}", "web faf [daemon off;]"),
        ('{{.Label "a"}}', "label of a"),
        ("{{len .Mounts}} {{len .Name}} {{len .Config.Labels}}", "2 4 2"),
        # Go's printing.
        ("{{.Args}}", "[-g daemon off;]"),
        ("{{.Config.Cmd}}", "[]"),
        ("{{.Config.Labels}}", "map[com.example.a:1 com.example.b:2]"),
        ("{{.State}}", "{running true 4242 0}"),
        ("{{.SizeRw}}", "<no value>"),
        ("{{print .SizeRw}}", "<nil>"),
        ("{{1.5}} {{2.0}} {{0x10}} {{017}} {{1_000}}", "1.5 2 16 15 1000"),
        ("{{1e6}} {{123456.5}} {{12345678.9}} {{0.0001}}", "1e+06 123456.5 1.23456789e+07 0.0001"),
        ("{{-3}} {{'a'}} {{true}} {{1 | print nil}}", "-3 97 true <nil> 1"),
        # Conditions.
        ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
        ("{{if .State.ExitCode}}bad{{else if .State.Pid}}pid{{else}}none{{end}}", "pid"),
        ("{{if .Config.Cmd}}cmd{{end}}", ""),
        ("{{if eq .State.Status `exited` `running`}}one of them{{end}}", "one of them"),
        ("{{if ne .Name ``}}named{{end}}", "named"),
        ("{{and .State.Running .Name}} {{or .Config.Cmd 0}} {{not .Id}}", "/web 0 false"),
        ("{{if and (gt .State.Pid 1) (le .State.ExitCode 0)}}y{{end}}", "y"),
        ("{{lt 1 2}}{{ge `b` `a`}}{{gt 1.5 2.5}}", "truetruefalse"),
        ("{{or .State.ExitCode (and .SizeRw 1) | not}}", "true"),
        ("{{eq .SizeRw nil}}", "true"),
        # with, variables, the root.
        ("{{with .State}}{{.Status}} {{$.Name}}{{end}}", "running /web"),
        ("{{with $s := .State}}{{$s.Pid}}{{end}}", "4242"),
        ("{{with .Config.Cmd}}x{{else}}no command{{end}}", "no command"),
        ("{{with .SizeRw}}x{{else with .Id}}{{.}}{{end}}", "8dfafdbc3a40"),
        ("{{$x := 1}}{{if true}}{{$x = 2}}{{$x := 3}}{{end}}{{$x}}", "2"),
        ("{{range $i, $e := .Args}}{{if $i}},{{end}}{{$e}}{{end}}", "-g,daemon off;"),
        ("{{range $e := .Args}}<{{$e}}>{{end}}", "<-g><daemon off;>"),
        ("{{range .Config.Cmd}}x{{else}}none{{end}}", "none"),
        ("{{range .Args}}x{{else}}none{{end}}", "xx"),
        ("{{range $x := .Config.Cmd}}x{{else}}{{$x}}{{end}}", "[]"),
        ("{{range .Mounts}}{{if .RW}}{{continue}}{{end}}{{.Type}}{{end}}", "volume"),
        ("{{range .Mounts}}{{.Type}}{{break}}{{end}}", "bind"),
        # Pipelines.
        ("{{.Name | upper}}", "/WEB"),
        ("{{.Name | upper | printf `%s-%s` .Id}}", "8dfafdbc3a40-/WEB"),
        ("{{.State.Status | eq `running`}}", "true"),
        ('{{"a" | .Label}}', "label of a"),
        ("{{((.State).Status)}}", "running"),
        # Text, trimming, comments, literals.
        ("no action at all", "no action at all"),
        ("", ""),
        ("a  {{- 1 -}}  b", "a1b"),
        ("a {{1}} b", "a 1 b"),
        ("a {{- /* gone */ -}} b", "ab"),
        ("a{{/* }} */}}b", "ab"),
        ("{{- 3}}{{-3}}", "3-3"),
        ('{{"}} and \\" and \\u00e9\\n"}}', '}} and " and é\n'),
        ("{{`raw \\n`}}", "raw \\n"),
        ("{{'\\n'}} {{'\\x41'}}", "10 65"),
        # printf.
        ('{{printf "%s has %d" .Name .State.Pid}}', "/web has 4242"),
        ('{{printf "%q %v %t" .Name .Args true}}', '"/web" [-g daemon off;] true'),
        ('{{printf "%q" .Args}}', '["-g" "daemon off;"]'),
        ('{{printf "%-8s|%8s|%.2s|" .Name .Name .Name}}', "/web    |    /web|/w|"),
        ('{{printf "%05d|%+d|%x|%X|%%" 42 42 255 "hi"}}', "00042|+42|ff|6869|%"),
        ('{{printf "%.2f %g %5.1f %G" 3.14159 2.5 1.25 0.00001}}', "3.14 2.5   1.2 1E-05"),
        ('{{printf "%#x %#o %#v %T" 255 8 "a" 1.5}}', '0xff 010 "a" float64'),
        ('{{printf "%*d" 5 42}}', "   42"),
        ('{{printf "%d" `x`}}', "%!d(string=x)"),
        ('{{printf "%d"}} {{printf "%d" 1 2}}', "%!d(MISSING) 1%!(EXTRA int=2)"),
        ('{{print 1 2 "a" 3}}', "1 2a3"),
    ],
)  # fmt: skip
def test_a_template_prints_what_docker_prints(source: str, text: str) -> None:
    assert render(source) == text


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{{.Nmae}}", 'at <.Nmae>: map has no entry for key "Nmae" (did you mean Name?)'),
        ("{{.State.Zzzz}}", 'at <.State.Zzzz>: map has no entry for key "Zzzz" (there are: Status'),
        ("{{.SizeRw.X}}", "at <.SizeRw.X>: nil has no field X"),
        ("{{.Name.X}}", "can't evaluate field X in type string"),
        ("{{.Name", "unclosed action"),
        ("{{", "unclosed action"),
        ("{{}}", "missing value for command"),
        ("{{if}}x{{end}}", "missing value for if"),
        ("{{.A | }}", "missing value for command"),
        ('{{"abc}}', "unterminated string"),
        ("{{`abc}}", "unterminated string"),
        ("{{nosuch .Id}}", 'function "nosuch" not defined'),
        ("{{$x}}", 'undefined variable "$x"'),
        ("{{$x = 1}}", 'undefined variable "$x"'),
        ("{{if true}}{{$x := 1}}{{end}}{{$x}}", 'undefined variable "$x"'),
        ("{{if true}}", "{{if}} has no {{end}}"),
        ("{{range .Args}}{{else}}", "{{range}} has no {{end}}"),
        ("{{end}}", "unexpected {{end}}"),
        ("{{else}}", "unexpected {{else}}"),
        ("{{if 1}}{{else}}{{else}}{{end}}", "unexpected {{else}}"),
        ("{{if 1}}{{else range .Args}}{{end}}", 'unexpected "range" in else'),
        ("{{break}}", "{{break}} outside {{range}}"),
        ("{{define `x`}}{{end}}", "{{define}} is not supported"),
        ("{{(.Id}}", "unclosed left parenthesis"),
        ("{{.Id)}}", 'unexpected ")" in command'),
        ("{{.Id, 1}}", 'unexpected "," in command'),
        ('{{.Id"x"}}', 'unexpected ""x"" in command'),
        ("{{.Id 1}}", "can't give argument to non-function .Id"),
        ("{{1 2}}", "can't give argument to non-function 1"),
        ("{{.Id | 1}}", "only functions can stand after a |"),
        ("{{range .Id}}{{end}}", "range can't iterate over 8dfafdbc3a40"),
        ("{{index .Args 2}}", "index out of range: 2"),
        ("{{index .Args -1}}", "index out of range: -1"),
        ('{{index .Args "a"}}', "cannot index list with string"),
        ("{{index .State 1}}", "value has type int; should be string"),
        ("{{slice .Id 5 2}}", "out of range"),
        ("{{slice .Id 1 2 3}}", "at most two bounds"),
        ("{{join .Name `,`}}", "want list got string"),
        ("{{join .Mounts `,`}}", "join wants a list of strings"),
        ("{{truncate .Id true}}", "want int got bool"),
        ("{{upper}}", "wrong number of args for upper: want 1 got 0"),
        ("{{eq 1}}", "want at least 2 got 1"),
        ("{{eq 1 `1`}}", "incompatible types for comparison"),
        ("{{lt 1 1.5}}", "incompatible types for comparison"),
        ("{{eq .Args .Args}}", "non-comparable type list"),
        ("{{len .State}}", "len of type struct"),
        ("{{and}}", "wrong number of args for and"),
        ("{{.Label}}", "a method of a row takes one string"),
        ("{{upper .Label}}", ".Label wants an argument"),
        ("{{99999999999999999999}}", "integer overflow"),
        ("{{08}}", "bad number syntax"),
        ('{{"\\z"}}', "invalid escape"),
        ("{{'ab'}}", "unterminated string"),
        ("{{'\\x4142'}}", "malformed character constant"),
        ("{{.Id # }}", "unexpected '# }}' in an action"),
        ("{{nil}}", "nil is not a command"),
        ('{{upper("a")}}', 'unexpected "(" in command'),
        ("{{1e999}}", "bad number syntax"),
        ("{{printf `%*d` `x` 1}}", "bad width"),
        ("{{$ = 1}}", "only a variable such as $x can be set"),
    ],
)
def test_a_mistake_is_named_in_one_line(source: str, said: str) -> None:
    with pytest.raises(TemplateError) as caught:
        render(source)
    assert str(caught.value).startswith("template parsing error: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 125


@pytest.mark.parametrize(
    "source",
    [
        "{{" + "(" * 5000 + "1" + ")" * 5000 + "}}",
        "{{if 1}}" * 1000 + "{{end}}" * 1000,
        "{{range .L}}{{range $.L}}{{range $.L}}x{{end}}{{end}}{{end}}",
        "{{$x := `x`}}{{range .L}}{{$x = print $x $x}}{{end}}",
        "{{pad `x` 2000000000 0}}",
        "{{printf `%2000000000d` 1}}",
        "{{printf `%.2000000000f` 1.5}}",
        "{{printf `%*d` 2000000000 1}}",
        "{{$x := .Long}}{{range .L}}{{$x}}{{end}}",
        "x" * 100_000,
    ],
)
def test_no_template_takes_more_than_its_share(source: str) -> None:
    value = {"L": list(range(500)), "Long": "x" * 1_000_000}
    with pytest.raises(TemplateError):
        render(source, value)


@given(st.text(alphabet="{}.$|()`\"'-=:, \\nifendrangewithelse0x*/%", max_size=60))
def test_any_text_is_a_template_or_a_template_error(source: str) -> None:
    try:
        render(source, {"i": [1, "a", None], "n": Map({"d": 1.5}), "e": True})
    except TemplateError:
        pass


ACTIONS = (
    "{{if .i}}|{{range .l}}|{{range $x, $y := .l}}|{{with .n}}|{{else}}|{{end}}|{{break}}|{{.}}|"
    "{{$x := 1}}|{{$x = .}}|{{$x}}|{{$y}}|text"
).split("|")


@given(st.lists(st.sampled_from(ACTIONS), max_size=12))
def test_any_order_of_actions_is_a_template_or_a_template_error(actions: list[str]) -> None:
    try:
        render("".join(actions), {"i": 1, "l": [1, 2], "n": Map({"a": "b"})})
    except TemplateError:
        pass


def test_titles_pass_through_functions_in_a_header() -> None:
    template = Template("{{upper .ID | json}}\t{{truncate .Names 2}}\t{{split .ID `,`}}")
    assert template.render_header({"ID": "Image id", "Names": "NAMES"}) == (
        "Image id\tNAMES\tImage id"
    )


def test_an_error_crosses_a_process_boundary_unchanged() -> None:
    error = TemplateError("why")
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy)) == (TemplateError, "template parsing error: why")


# Templates of constants only, so that any program that uses Go's engine can be asked.
CONSTANT = r"""
{{printf "%05d|%+d|%x|%X|%o|%b|%c|%U|%q" 42 42 255 255 8 5 97 128512 97}}
{{printf "%-8s|%8s|%.2s|%q|%x|%X" "abc" "abc" "abc" "a\"b" "hi" "hi"}}
{{printf "%v %v %v %v %T" 1 "a" true 1.5 1.5}}
{{printf "%d" "x"}} {{printf "%s" 5}} {{printf "%t" 1}} {{printf "%d" true}} {{printf "%v" nil}}
{{printf "%d"}} {{printf "%d" 1 2}} {{printf "%d %d" 1}} {{printf "%!" 1}} {{printf "%"}}
{{printf "%6.2f|%e|%g|%G|%f" 3.14159 1234.5 1234.5 0.00001 2.0}}
{{printf "%*d|%-*d|%.*f" 5 42 5 42 2 3.14159}}
{{printf "%q %s %v %d" (split "a,b" ",") (split "a,b" ",") (split "a,b" ",") (split "a,b" ",")}}
{{print 1 2 "a" 3 "b" "c" 1.5 true}} {{print nil}} {{println 1 "a" true}}
{{1.5}} {{2.0}} {{1e6}} {{1e21}} {{123456.5}} {{1234567.5}} {{.00001}} {{0x10}} {{017}} {{1_000}}
{{-3}} {{+3}} {{'a'}} {{'\x41'}} {{'\u00e9'}} {{0b101}} {{0o17}} {{true}} {{"\\\"\x41\101\u00e9"}}
{{len "abc"}} {{index "abc" 1}} {{slice "abcdef" 1 3}} {{slice "abcdef" 2}} {{slice "abc"}}
{{eq 1 1}} {{eq 1 2 1}} {{ne 1 2}} {{lt 1 2}} {{le 2 2}} {{gt "b" "a"}} {{ge 1.5 1.5}}
{{and 1 0 2}} {{and 1 2}} {{or 0 "" "x"}} {{or 0 ""}}| {{not 0}} {{not "a"}} {{true | not}}
{{"a" | upper}} {{"ABC" | lower}} {{title "hello wORLD foo-bar it's"}} {{1 | printf "%d-%d" 2}}
{{truncate "abcdef" 3}} {{pad "x" 2 3}}| {{pad "" 2 3}}| {{truncate "ab" 5}}
{{join (split "a,b,c" ",") "-"}} {{split "a,b" ","}} {{len (split "a,b" ",")}} {{split "abc" ""}}
{{json "a<b>&é"}} {{json 1.5}} {{json true}} {{json (split "a,b" ",")}} {{json nil}}
{{$x := 1}}{{if true}}{{$x = 2}}{{$x := 3}}{{end}}{{$x}}
{{range $i, $e := split "a,b,c" ","}}{{if $i}};{{end}}{{$i}}={{$e}}{{end}}
{{range split "a,b,c" ","}}{{if eq . "b"}}{{continue}}{{end}}{{.}}{{end}}
{{range slice (split "a" ",") 1}}x{{else}}none{{end}}
{{with "a"}}{{.}}{{else}}b{{end}}{{with ""}}{{.}}{{else}}b{{end}}
{{if 0}}a{{else if 1}}b{{else}}c{{end}} a  {{- 1 -}}  b {{- /* x */ -}} c {{/* y */}} d
"""


def test_gos_own_engine_prints_the_same(tmp_path: Path) -> None:
    directories = ("HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME")
    environment = os.environ | dict.fromkeys(directories, str(tmp_path))
    try:
        done = subprocess.run(
            ["podman", "version", "--format", CONSTANT],
            env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
    finally:
        # Ends the process that keeps Podman's user namespace.
        subprocess.run(["podman", "system", "migrate"], env=environment, check=True)
    assert render(CONSTANT).rstrip("\n") == done.stdout.rstrip("\n")


NO_CHECK = Struct({"Status": "exited"}, "Health")


@pytest.mark.parametrize(
    ("state", "text"),
    [(NO_CHECK, "none"), (Struct({"Health": {"Status": "healthy"}}, "Health"), "healthy")],
)
def test_pointer_to_nothing_is_false(state: Struct, text: str) -> None:
    source = "{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}"
    assert render(source, {"State": state}) == text


def test_pointer_to_nothing_has_no_fields_and_is_left_out_in_json() -> None:
    with pytest.raises(TemplateError, match="nil has no field Status"):
        render("{{.Health.Status}}", NO_CHECK)
    with pytest.raises(TemplateError, match="no entry for key"):
        render("{{.Helth}}", NO_CHECK)
    assert render("{{json .}}", NO_CHECK) == '{"Status":"exited"}'
