"""Checks that what the dashboard and the scaling ask for is measured. Usage: dashboard.py BASE_URL BUILT_YAML"""

import concurrent.futures
import http.client
import json
import random
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import yaml

# Labels that Prometheus adds, and a histogram's own.
GIVEN = {"namespace", "pod", "le"}


def main(base: str, built: str) -> None:
    with open(built) as file:
        objects = list(yaml.safe_load_all(file))
    dashboard = next(thing for thing in objects if thing["metadata"]["name"] == "siglip-dashboard")
    dashboard = json.loads(dashboard["data"]["siglip.json"])
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    queries += [variable["query"]["query"] for variable in dashboard["templating"]["list"] if variable["type"] == "query"]
    scaled = next(thing for thing in objects if thing["kind"] == "ScaledObject")
    queries += [trigger["metadata"]["query"] for trigger in scaled["spec"]["triggers"]]
    assert len(queries) > 30

    traffic(base)
    there = metrics(base)
    asked = set()
    for query in queries:
        names = set(re.findall(r"\bsiglip_\w+", query))
        assert names, query
        labels = set(re.findall(r"(\w+)\s*=~?\s*\"", query))
        for group in re.findall(r"\bby \(([^)]*)\)", query):
            labels |= {label.strip() for label in group.split(",")}
        for name in names:
            assert name in there, f"there is no metric {name}: {query}"
            missing = labels - there[name] - GIVEN
            assert not missing, f"{name} has no label {missing}: {query}"
        asked |= {re.sub(r"_(bucket|sum|count)$", "", name) for name in names}
    # The other way round: what is measured, and nobody looks at.
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in there}
    assert families - asked <= {"siglip_fetch_duration_seconds"}, families - asked

    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    print(f"{len(panels)} panels, {len(queries)} queries, {len(asked)} metrics")


def post(base: str, path: str, document: object, headers: dict | None = None) -> int:
    data = json.dumps(document).encode()
    request = urllib.request.Request(base + path, data, {"content-type": "application/json", **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def texts() -> dict:
    """As many as a request may have, none of them in the cache."""
    return {"input": [f"text {random.random()}" for _ in range(100)]}


def traffic(base: str) -> None:
    """What makes every metric appear that is counted only when it happens."""
    assert post(base, "/v1/embeddings", {"input": ["a cat", "a cat"]}) == 200
    def ask(_: int) -> int:
        return post(base, "/v1/embeddings", texts())

    # More at once than the queue takes, and clients that do not wait.
    with concurrent.futures.ThreadPoolExecutor(16) as threads:
        for _ in range(20):
            if 429 in threads.map(ask, range(16)):
                break
    for attempt in range(100):
        place = urllib.parse.urlsplit(base)
        connection = http.client.HTTPConnection(place.hostname, place.port, timeout=60)
        connection.request("POST", "/v1/embeddings", json.dumps(texts()), {"content-type": "application/json"})
        time.sleep(0.002 * (attempt % 10))
        connection.close()
        time.sleep(0.05)
        if "siglip_cancelled_total" in metrics(base):
            break
    # A connection that idles for longer than --keep-alive.
    connection.request("GET", "/health/live")
    connection.getresponse().read()
    time.sleep(2)
    connection.close()


def metrics(base: str) -> dict[str, set[str]]:
    """The labels of each sample's name."""
    with urllib.request.urlopen(base + "/metrics", timeout=60) as answer:
        text = answer.read().decode()
    found: dict[str, set[str]] = {}
    for name, labels in re.findall(r"^(siglip_\w+)(?:\{(.*)\})? ", text, re.M):
        found.setdefault(name, set()).update(re.findall(r"(\w+)=\"", labels))
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
