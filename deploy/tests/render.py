"""Renders the chart with Helm's own library: render.py VALUES [--notes] prints the manifests, or the notes."""

import pathlib
import sys

from helm_python import chart

values = chart.values_from_yaml(pathlib.Path(sys.argv[1]).read_text())
folder = pathlib.Path(__file__).parent.parent / "helm" / "passage-authz"
with chart.Chart.load(folder) as loaded:
    rendered = loaded.render(values=values, name="authz", namespace="security")
notes = {name: text for name, text in rendered.items() if name.endswith("NOTES.txt")}
wanted = notes if "--notes" in sys.argv else {name: text for name, text in rendered.items() if name not in notes}
print("\n---\n".join(text for text in wanted.values() if text.strip()))
