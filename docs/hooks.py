"""Pages of the documentation that lie elsewhere in the project, or are made of its configs. Used by mkdocs.yml."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {  # of the project, and where the site has them
    "bundle/docs/README.md": "project/model.md",
    "bundle/docs/simple_slice_net.md": "project/simple_slice_net.md",
    "bundle/docs/disentangled.md": "project/disentangled.md",
    "benchmarks/README.md": "project/benchmarks.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
    "examples/README.md": "project/examples.md",
    "README.md": "index.md",
}
PICTURES = "bundle/docs"  # the site has them in project/
NO_PAGES = (".py", ".yaml", ".json", ".txt", "LICENSE")


def on_files(files: Files, config) -> Files:
    for source, target in PAGES.items():
        if target not in files.src_uris:
            files.append(File.generated(config, target, abs_src_path=str(ROOT / source)))
    for picture in sorted((ROOT / PICTURES).glob("*.png")):
        files.append(File.generated(config, f"project/{picture.name}", abs_src_path=str(picture)))
    files.append(File.generated(config, "reference/configs.md", content=configs_page()))
    return files


def _source(uri: str) -> str:
    """Where in the project a page of the site comes from."""
    return next((source for source, target in PAGES.items() if target == uri), f"docs/{uri}")


def _place(path: str) -> str | None:
    """Where on the site a file of the project is, if it is there."""
    if path in PAGES:
        return PAGES[path]
    if path.startswith(f"{PICTURES}/") and path.endswith(".png"):
        return f"project/{posixpath.basename(path)}"
    return path.removeprefix("docs/") if path.startswith("docs/") and not path.endswith(NO_PAGES) else None


def on_page_markdown(markdown: str, page, config, files) -> str:
    """Links are written for a reader of the repository; here they lead to pages, and what has no page becomes its name."""
    uri = page.file.src_uri
    folder = posixpath.dirname(_source(uri))

    def mended(match: re.Match) -> str:
        text, target = match["text"], match["target"]
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        path, _, anchor = target.partition("#")
        place = _place(posixpath.normpath(posixpath.join(folder, path)))
        if place is None:
            if not (ROOT / folder / path).exists():
                return match[0]  # mkdocs says that it leads nowhere
            return f"{text} (`{posixpath.normpath(posixpath.join(folder, path))}`)"
        link = posixpath.relpath(place, posixpath.dirname(uri) or ".")
        return f"{match['mark']}[{text}]({link}{'#' + anchor if anchor else ''})"

    return re.sub(r"(?P<mark>!?)\[(?P<text>[^\]\[]*)\]\((?P<target>[^)\s]+)\)", mended, markdown)


def described_keys(path: Path) -> tuple[str, list[tuple[str, str, str]]]:
    """What a config file says of itself, and each of its plain top-level keys with value and comment.

    A key whose value refers to other keys, or is an object, is left out: the file is the place to read it.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    about = []
    for line in lines:
        if not line.startswith("#"):
            break
        about.append(line.removeprefix("#").strip())
    keys = []
    for line in lines:
        match = re.match(r"^([a-z_]+): (.*)$", line)
        if not match:
            continue
        value, _, comment = match[2].partition(" # ")
        if not re.match(r"""['"]?[$@%]""", value) and value.strip() not in ("", ">", "|"):
            keys.append((match[1], value.strip(), comment.strip()))
    return "\n".join(about), keys


def configs_page() -> str:
    """A table of keys for every config file."""
    parts = [
        "# Keys of the configs",
        "Made of the files in `bundle/configs`. Each key can be set on the command line as `--key value`.",
        "[P] is the value of the paper, [R] that of its public code.",
    ]
    configs = ROOT / "bundle/configs"
    for file in sorted(configs.glob("*.yaml")) + sorted((configs / "sizes").glob("*.yaml")):
        about, keys = described_keys(file)
        name = file.relative_to(configs)
        parts.append(f"## {name}\n\n{_as_text(about)}")
        if keys:
            rows = [f"| `{key}` | `{_cell(value)}` | {_cell(comment)} |" for key, value, comment in keys]
            parts.append("\n".join(["| key | default | what |", "|---|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|") or " "


def _as_text(about: str) -> str:
    """Prose as it is, commands as code."""
    commands = re.compile(r"^(python -m|torchrun|--|run )")
    text, code = [], []
    for line in about.splitlines():
        (code if commands.match(line) else text).append(line)
    return " ".join(text) + (f"\n\n```bash\n{chr(10).join(code)}\n```" if code else "")
