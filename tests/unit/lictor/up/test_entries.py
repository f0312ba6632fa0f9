from __future__ import annotations

from pathlib import Path

from lictor.up.entries import Located, read_entries, refusals, title
from sidecar.yaml_reader import read_document

SPLITTER = 'Kind = "service-splitter"\nName = "api"\nSplits = [{ Weight = 100 }]\n'


def read(folder: Path, text: str) -> tuple[list[Located], list[str]]:
    (folder / "mesh.yaml").write_text(text)
    document = read_document(folder / "mesh.yaml")
    found = read_entries(document, folder)
    return list(found), [str(problem).replace(f"{folder}/", "") for problem in document.problems]


def test_files_folders_and_entries_written_out(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "b.json").write_text('{"Kind": "service-defaults", "Name": "b", "Protocol": "HTTP"}')
    (tmp_path / "more" / "a.hcl").write_text(SPLITTER)
    (tmp_path / "more" / "README").write_text("no entry")
    (tmp_path / "one.hcl").write_text('kind = "mesh"')
    text = "config:\n  - one.hcl\n  - more\n  - kind: service-resolver\n    name: web\n    connect_timeout: 5s\n"
    found, problems = read(tmp_path, text)
    assert problems == []
    assert [(title(one.entry), one.place.replace(f"{tmp_path}/", "")) for one in found] == [
        ("mesh/mesh", "one.hcl:1"),
        ("service-splitter/api", "more/a.hcl:1"),
        ("service-defaults/b", "more/b.json:1"),
        ("service-resolver/web", "mesh.yaml:4"),
    ]
    assert found[2].entry["Protocol"] == "http", "as Consul keeps it"


def test_one_path_need_not_be_a_list_and_nothing_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "one.hcl").write_text(SPLITTER)
    assert len(read(tmp_path, "config: one.hcl")[0]) == 1
    assert read(tmp_path, "config:") == ([], [])
    assert read(tmp_path, "other: 1") == ([], [])


def test_mistakes_are_told_with_their_lines(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "key.hcl").write_text('Kind = "service-splitter"\nName = "api"\nSplitz = []\n')
    (tmp_path / "quote.hcl").write_text('Kind = "mesh"\nName = "x\n')
    (tmp_path / "sum.hcl").write_text('Kind = "service-splitter"\nName = "s"\nSplits = [{ Weight = 50 }]\n')
    (tmp_path / "kind.json").write_text('{\n"Kind": "nonsense"}')
    (tmp_path / "once.hcl").write_text(SPLITTER)
    text = """config:
  - none.hcl
  - empty
  - key.hcl
  - quote.hcl
  - sum.hcl
  - kind.json
  - once.hcl
  - kind: service-splitter
    name: API
    splits: [{weight: 100}]
  - kind: service-resolver
    name: web
    conect_timeout: 5s
  - [x]
  - {kind: mesh, when: 2020-01-01}
"""
    _, problems = read(tmp_path, text)
    odd = "holds something that is no text, number, list or mapping"
    mend = "; this is what Consul says to it"
    assert problems == [
        "mesh.yaml:2: config: none.hcl is not there; name a file or folder of HCL or JSON, relative to this file",
        "mesh.yaml:3: config: empty holds no .hcl and no .json; put entries there, one a file, or take it out",
        f'key.hcl:3: Splitz: invalid config key "Splitz"; mend the entry service-splitter/api{mend}',
        "quote.hcl:2:8: literal not terminated; close every quote and bracket, and quote text",
        f"sum.hcl:1: the sum of all split weights must be 100, not 50.000000; mend the entry service-splitter/s{mend}",
        f"kind.json:2: kind: invalid config entry kind: nonsense; mend the entry nonsense/{mend}",
        f'mesh.yaml:14: conect_timeout: invalid config key "conect_timeout"; mend the entry service-resolver/web{mend}',
        "mesh.yaml:15: config: expected a path or an entry; write `config: [policies/]`",
        f"mesh.yaml:16: config: {odd}; quote dates and other special values",
        "mesh.yaml:9: service-splitter/API is written in once.hcl:1 already; keep one of them",
    ]


def test_what_consul_would_refuse_of_entries_together() -> None:
    tcp = {"Kind": "service-defaults", "Name": "db", "Protocol": "tcp"}
    splitter = {"Kind": "service-splitter", "Name": "db", "Splits": [{"Weight": 100}]}
    assert refusals([{**tcp, "Protocol": "http"}, splitter], [], "mesh.yaml") == []
    (own,) = refusals([tcp, splitter], [Located(splitter, "s.hcl:1")], "mesh.yaml")
    assert own.where == "s.hcl:1"
    assert own.message.startswith("service-splitter/db would be refused: ")
    assert "tcp" in own.message
    (made,) = refusals([tcp, splitter], [], "mesh.yaml")
    assert made.where == "mesh.yaml: service-splitter/db, made by lictor up"
