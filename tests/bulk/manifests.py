"""Checks built manifests. Usage: manifests.py BINARY FOLDER CUSTOM

FOLDER has the output of kustomize, one file each; objects that Kubernetes has no schema for go to the file CUSTOM, as JSON.
"""

import json
import pathlib
import re
import subprocess
import sys

import kubernetes_validate
import yaml

VERSIONS = ["1.31", kubernetes_validate.latest_version()]
CUSTOM = {"ServiceMonitor", "ScaledObject"}


def main(binary: str, folder: str, custom: str) -> None:
    files = {
        path.stem: [document for document in yaml.safe_load_all(path.read_text()) if document]
        for path in sorted(pathlib.Path(folder).glob("*.yaml"))
    }
    others = [thing for objects in files.values() for thing in objects if thing["kind"] in CUSTOM]
    assert len(files) == 4 and others
    pathlib.Path(custom).write_text(json.dumps(others))
    for name, objects in files.items():
        for thing in objects:
            assert thing["metadata"]["namespace"] == "siglip", thing
            if thing["kind"] in CUSTOM:
                continue
            for version in VERSIONS:
                kubernetes_validate.validate(thing, version, strict=True)
        for thing in objects:
            if thing["kind"] in ("Deployment", "Job"):
                check_pod(binary, thing, objects)
        if name == "embed-job":
            check_job(objects)
        else:
            check_service(name, objects)
        print(f"{name}: {len(objects)} objects")


def one(objects: list, kind: str, name: str | None = None) -> dict:
    found = [thing for thing in objects if thing["kind"] == kind and name in (None, thing["metadata"]["name"])]
    assert len(found) == 1, (kind, name, len(found))
    return found[0]


def fits(selector: dict, labels: dict) -> bool:
    return bool(selector) and selector.items() <= labels.items()


def help_of(binary: str, command: str) -> str:
    return subprocess.run([binary, command, "--help"], capture_output=True, text=True, check=True).stdout


def check_pod(binary: str, thing: dict, objects: list) -> None:
    pod = thing["spec"]["template"]["spec"]
    # Kubernetes itself would set SIGLIP_PORT and others for a service called siglip.
    assert pod["enableServiceLinks"] is False and pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for container in pod["containers"]:
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False and security["privileged"] is False
        assert security["readOnlyRootFilesystem"] is True and security["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]
        mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
        assert mounts.keys() == volumes.keys()
        for name, mount in mounts.items():
            claim = volumes[name].get("persistentVolumeClaim")
            if claim:
                one(objects, "PersistentVolumeClaim", claim["claimName"])
                assert claim.get("readOnly", False) == mount.get("readOnly", False), name

        command, flags = command_line(container)
        text = help_of(binary, command)
        for flag in flags:
            assert re.search(rf"(^|[ ,]){flag}\b", text, re.M), f"siglip {command} has no flag {flag}"
        names = [entry["name"] for entry in container.get("env", [])]
        for source in container.get("envFrom", []):
            if "configMapRef" in source:
                names += one(objects, "ConfigMap", source["configMapRef"]["name"])["data"]
        for name in names:
            if name.startswith("SIGLIP_"):
                assert f"[env: {name}" in text, f"siglip {command} does not read {name}"


def command_line(container: dict) -> tuple[str, list[str]]:
    """The command of the program, and its flags."""
    words = container["args"]
    if container.get("command"):
        assert container["command"] == ["/bin/sh", "-c"] and len(words) == 1
        words = re.search(r"^siglip (.*?)(&|$)", words[0], re.M)[1].split()
    return words[0], [word.split("=")[0] for word in words[1:] if word.startswith("--")]


def seconds(text: str) -> int:
    return int(re.fullmatch(r"(\d+)s", text)[1])


def check_service(name: str, objects: list) -> None:
    deployment = one(objects, "Deployment")
    pod = deployment["spec"]["template"]
    labels = pod["metadata"]["labels"]
    [container] = pod["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    config = one(objects, "ConfigMap", container["envFrom"][0]["configMapRef"]["name"])["data"]

    # What was begun is finished before the pod is killed.
    grace = pod["spec"]["terminationGracePeriodSeconds"]
    assert grace > seconds(config["SIGLIP_DRAIN_DELAY"]) + seconds(config["SIGLIP_DRAIN_TIMEOUT"]) + 1
    assert int(config["SIGLIP_ADMIN_PORT"]) == ports["admin"]
    for probe, path in [("livenessProbe", "/health/live"), ("readinessProbe", "/health/ready")]:
        assert container[probe]["httpGet"] == {"path": path, "port": "admin"}
    # An endpoint is gone for the load balancer before new work is refused.
    readiness = container["readinessProbe"]
    assert readiness["periodSeconds"] * readiness["failureThreshold"] <= seconds(config["SIGLIP_DRAIN_DELAY"])

    services = [thing for thing in objects if thing["kind"] == "Service"]
    for service in services:
        assert fits(service["spec"]["selector"], labels), service
        assert all(port["targetPort"] in ports for port in service["spec"]["ports"])
    selectors = [one(objects, "PodDisruptionBudget")["spec"]["selector"], one(objects, "NetworkPolicy")["spec"]["podSelector"]]
    for selector in [*selectors, deployment["spec"]["selector"]]:
        assert fits(selector["matchLabels"], labels), selector

    monitor = one(objects, "ServiceMonitor")["spec"]
    watched = [each for each in services if fits(monitor["selector"]["matchLabels"], each["metadata"]["labels"])]
    assert [service["metadata"]["name"] for service in watched] == ["siglip-admin"]
    assert {end["port"] for end in monitor["endpoints"]} == {port["name"] for port in watched[0]["spec"]["ports"]}

    scaled = [thing for thing in objects if thing["kind"] == "ScaledObject"]
    if scaled:
        assert scaled[0]["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
        assert "replicas" not in deployment["spec"], "an apply would undo the scaling"
    if name == "gpu":
        assert container["resources"]["limits"]["nvidia.com/gpu"] == container["resources"]["requests"]["nvidia.com/gpu"]
        assert config["SIGLIP_DEVICE"] == "cuda"
    if name == "model-volume":
        mount = next(mount for mount in container["volumeMounts"] if mount["mountPath"] == "/models")
        assert mount["readOnly"] is True and config["HF_HUB_OFFLINE"] == "1"
        assert not one(objects, "NetworkPolicy")["spec"]["egress"]


def check_job(objects: list) -> None:
    spec = one(objects, "Job")["spec"]
    [container] = spec["template"]["spec"]["containers"]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    assert spec["completionMode"] == "Indexed" and int(environment["SHARDS"]) == spec["completions"]
    assert spec["template"]["spec"]["restartPolicy"] == "Never", "podFailurePolicy needs it"
    actions = {}
    for rule in spec["podFailurePolicy"]["rules"]:
        codes = rule.get("onExitCodes")
        if codes:
            assert codes["containerName"] == container["name"] and codes["operator"] == "In"
            actions |= dict.fromkeys(codes["values"], rule["action"])
    assert actions == {2: "FailJob", 4: "FailJob", 75: "Count"}, actions


if __name__ == "__main__":
    main(*sys.argv[1:])
