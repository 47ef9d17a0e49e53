"""Judges Kubernetes manifests strictly: manifests.py VERSION... < manifests.yaml

Kubernetes' own kinds by the schemas of these versions; those of the Prometheus operator by models made from its resource
definitions (0.80). An unknown key is a mistake, as is a kind that nobody here knows. Prints the kinds.
"""

import sys

import kubernetes_validate
import yaml
from cloudcoil.models.prometheus_operator import v1 as operator

OPERATOR = {"PodMonitor": operator.PodMonitor, "PrometheusRule": operator.PrometheusRule}


def unknown_keys(written, understood, place=""):
    """The models leave out what they do not know: what is gone afterwards was a mistake."""
    if isinstance(written, dict):
        for key, value in written.items():
            if not isinstance(understood, dict) or key not in understood:
                yield f"{place}.{key}"
            else:
                yield from unknown_keys(value, understood[key], f"{place}.{key}")
    elif isinstance(written, list):
        for index, value in enumerate(written):
            yield from unknown_keys(value, understood[index], f"{place}[{index}]")


def judge(manifest, versions):
    kind = manifest["kind"]
    if manifest["apiVersion"] != "monitoring.coreos.com/v1":
        for version in versions:
            kubernetes_validate.validate(manifest, version, strict=True)
        return
    model = OPERATOR[kind].model_validate(manifest)
    unknown = list(unknown_keys(manifest, model.model_dump(by_alias=True, exclude_none=True, mode="json")))
    if unknown:
        raise ValueError(f"unknown keys: {', '.join(unknown)}")


def main():
    versions = sys.argv[1:]
    failed = False
    for manifest in filter(None, yaml.safe_load_all(sys.stdin)):
        name = f"{manifest['kind']} {manifest['metadata']['name']}"
        try:
            judge(manifest, versions)
            print(name)
        except Exception as error:  # whatever is wrong, it is the manifest that is wrong
            failed = True
            print(f"{name}: {str(error).splitlines()[0]}", file=sys.stderr)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
