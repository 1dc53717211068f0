"""Reads requests as JSON from standard input, asks Helm's own library, and prints the answers as JSON.

A request is {"values": {...}, "name": ..., "namespace": ...}; an answer is {"lint": [...]} with either
{"rendered": {template: text}} or {"refused": text}.
"""

import json
import sys

from helm_python import chart
from helm_python.errors import HelmError


def answer(path, loaded, request):
    values = request["values"]
    result = {"lint": chart.lint(path, values, strict=True)}
    try:
        result["rendered"] = loaded.render(values=values, name=request["name"], namespace=request["namespace"])
    except HelmError as error:
        result["refused"] = str(error)
    return result


path = sys.argv[1]
with chart.Chart.load(path) as loaded:
    json.dump([answer(path, loaded, request) for request in json.load(sys.stdin)], sys.stdout)
