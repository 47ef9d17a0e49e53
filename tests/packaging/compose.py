"""Judges a compose file without an engine: compose.py FILE

Only keys of the compose specification that are listed here (those in use), every mounted file and folder is there, every
service that another names as well, ports are of this machine only.
"""

import pathlib
import sys

import yaml

TOP = {"name", "services", "volumes"}
SERVICE = {
    "build", "cap_drop", "command", "depends_on", "environment", "healthcheck", "image", "network_mode", "ports",
    "read_only", "security_opt", "stop_grace_period", "volumes",
}
BUILD = {"context", "dockerfile"}


def unknown(keys, known, where):
    return [f"{where}: unknown key {key}" for key in sorted(set(keys) - known)]


def mistakes(file):
    folder = file.parent
    compose = yaml.safe_load(file.read_text())
    services = compose["services"]
    found = unknown(compose, TOP, "the file")
    for name, service in services.items():
        found += unknown(service, SERVICE, name)
        if "image" not in service:
            found.append(f"{name}: no image")
        build = service.get("build", {})
        found += unknown(build, BUILD, f"{name}.build")
        # The context is made by `make package`; the Dockerfile is relative to it.
        if build and not (folder / build["context"] / build["dockerfile"]).resolve().is_file():
            found.append(f"{name}: no {build['dockerfile']}")
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            there = (folder / source).exists() if source.startswith(".") else source in compose.get("volumes", {})
            if not there:
                found.append(f"{name}: {source} is not there")
        others = list(service.get("depends_on", []))
        others += [service["network_mode"].removeprefix("service:")] if "network_mode" in service else []
        found += [f"{name}: no service {other}" for other in others if other not in services]
        ports = service.get("ports", [])
        found += [f"{name}: port {port} is open to everybody" for port in ports if not port.startswith("127.0.0.1:")]
    return found


def main():
    found = mistakes(pathlib.Path(sys.argv[1]).absolute())
    print("\n".join(found), file=sys.stderr)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
