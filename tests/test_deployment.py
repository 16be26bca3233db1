"""Container images, Kubernetes manifests and the Flex Template agree with the package, its pins and each other."""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    PipelineOptions,
    PortableOptions,
    WorkerOptions,
)

from maskdet.beam.jobs import is_template_launch
from maskdet.beam.options import parse_beam_options
from maskdet.cli.scoring_run import command_parser
from maskdet.config import ScoreSettings, load_yaml
from tools.flink import cluster, programs

ROOT = Path(__file__).parents[1]
DOCKERFILES = sorted(ROOT.glob("docker/*/Dockerfile"))
MANIFESTS = sorted(ROOT.glob("kubernetes/flink/*.yaml"))
NIGHTLY = ROOT / "kubernetes" / "nightly"
BEAM = re.search(r"^apache-beam==(.+)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)[1]
SETUP = (ROOT / "setup.py").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
# Flags without a value, which a template cannot pass, and flags that make sense only in a terminal.
NOT_IN_TEMPLATE = {"--help", "--overwrite", "--quiet", "--json-logs", "--wait"}


def instructions(path):
    """The (instruction, arguments) of a Dockerfile."""
    text = re.sub(r"^#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


def documents():
    return [document for path in MANIFESTS for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))]


def pods():
    """Every pod that a manifest describes."""
    return [document["spec"]["template"] for document in documents() if "template" in document.get("spec", {})]


def containers():
    return [
        container
        for pod in pods()
        for container in [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]
    ]


def only(found):
    (one,) = set(found)
    return one


class TestImages:
    @pytest.fixture(params=DOCKERFILES, ids=lambda path: path.parent.name)
    def path(self, request):
        return request.param

    def test_python_is_one_that_the_package_supports_and_that_is_tested(self, path):
        froms = [arguments for name, arguments in instructions(path) if name == "FROM"]
        python = only(re.findall(r"python:?(\d\.\d+)", " ".join(froms)))
        low, high = re.search(r'python_requires=">=3\.(\d+),<3\.(\d+)"', SETUP).groups()
        assert int(low) <= int(python.split(".")[1]) < int(high)
        assert python == re.search(r"command -v python(\d\.\d+)", MAKEFILE).group(1)  # what `make test` looks for first

    def test_every_image_it_is_built_from_has_a_full_version(self, path):
        froms = [arguments.split()[0] for name, arguments in instructions(path) if name == "FROM"]
        assert froms
        assert not [image for image in froms if not re.search(r":.*(\d+\.\d+\.\d+|\d{8})", image)]

    def test_beam_is_the_pinned_one(self, path):
        froms = [arguments for name, arguments in instructions(path) if name == "FROM"]
        assert re.findall(r"apache/beam_python[\d.]+_sdk:(\S+)", " ".join(froms)) == [BEAM]

    def test_workers_start_with_beam_s_own_program(self, path):
        found = instructions(path)
        assert json.loads(only(arguments for name, arguments in found if name == "ENTRYPOINT")) == [
            "/opt/apache/beam/boot"
        ]
        assert ("COPY", "--from=beam /opt/apache/beam /opt/apache/beam") in found

    def test_every_package_is_pinned_and_they_are_checked_to_fit(self, path):
        (install,) = [
            arguments for name, arguments in instructions(path) if name == "RUN" and "pip install" in arguments
        ]
        assert "--constraint constraints.txt" in install
        assert "pip check" in install

    def test_what_it_copies_is_there_and_not_ignored(self, path):
        kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
        for name, arguments in instructions(path):
            if name == "COPY" and "--from" not in arguments:
                for source in arguments.split()[:-1]:
                    assert (ROOT / source).exists(), source
                    assert source.split("/")[0] in kept

    def test_its_extras_are_those_of_the_package(self, path):
        extras = re.findall(r"EXTRAS=\[(.+)\]", path.read_text())
        known = only(
            tuple(ast.literal_eval(key) for key in map(ast.unparse, node.value.keys))
            for node in ast.walk(ast.parse(SETUP))
            if isinstance(node, ast.keyword) and node.arg == "extras_require"
        )
        assert extras
        assert all(set(extra.split(",")) <= set(known) for extra in extras)


class TestKubernetes:
    def test_every_document_has_its_kind_and_name(self):
        for document in documents():
            assert {"apiVersion", "kind", "metadata"} <= set(document)
            assert {"name", "generateName"} & set(document["metadata"])

    def test_selectors_find_their_pods(self):
        labels = [pod["metadata"]["labels"] for pod in pods()]
        for document in documents():
            selector = document.get("spec", {}).get("selector")
            if selector is not None:
                wanted = selector.get("matchLabels", selector)
                assert any(wanted.items() <= found.items() for found in labels), document["metadata"]

    def test_volumes_and_settings_that_pods_use_are_there(self):
        claims = {
            document["metadata"]["name"] for document in documents() if document["kind"] == "PersistentVolumeClaim"
        }
        settings = {
            document["metadata"]["name"]: document for document in documents() if document["kind"] == "ConfigMap"
        }
        for pod in pods():
            volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes", ())}
            assert {volume["persistentVolumeClaim"]["claimName"] for volume in volumes.values()} <= claims
            for container in [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]:
                assert {mount["name"] for mount in container.get("volumeMounts", ())} <= set(volumes)
                for variable in container.get("env", ()):
                    if "configMapKeyRef" in variable.get("valueFrom", ()):
                        reference = variable["valueFrom"]["configMapKeyRef"]
                        assert reference["key"] in settings[reference["name"]]["data"]

    def test_artifacts_lie_at_one_path_for_all(self):
        mounts = [mount for container in containers() for mount in container.get("volumeMounts", ())]
        path = only(mount["mountPath"] for mount in mounts if mount["name"] == "artifacts")
        (server,) = [container for container in containers() if container["name"] == "job-server"]
        assert f"--artifacts-dir={path}" in server["args"]
        assert len(mounts) == 3

    def test_a_job_manager_that_is_started_again_finds_its_jobs_and_is_found(self):
        (settings,) = [doc["data"] for doc in documents() if doc["kind"] == "ConfigMap"]
        flink = yaml.safe_load(settings["FLINK_PROPERTIES"])
        assert flink["high-availability.type"] == "kubernetes"
        managers = {pod["metadata"]["labels"].get("component"): pod["spec"] for pod in pods()}
        of_jobs, of_tasks = managers["jobmanager"], managers["taskmanager"]
        kept = flink["high-availability.storageDir"].removeprefix("file://")
        mounts = {mount["name"]: mount["mountPath"] for mount in of_jobs["containers"][0]["volumeMounts"]}
        claims = {volume["name"]: volume["persistentVolumeClaim"]["claimName"] for volume in of_jobs["volumes"]}
        (volume,) = [claims[name] for name, path in mounts.items() if kept.startswith(f"{path}/")]
        assert volume in {doc["metadata"]["name"] for doc in documents() if doc["kind"] == "PersistentVolumeClaim"}
        # What Flink's guide to high availability on Kubernetes asks for: the address of the pod, and ConfigMaps.
        assert of_jobs["containers"][0]["args"] == ["jobmanager", "$(POD_IP)"]
        (address,) = [env for env in of_jobs["containers"][0]["env"] if env["name"] == "POD_IP"]
        assert address["valueFrom"]["fieldRef"]["fieldPath"] == "status.podIP"
        (account,) = [doc["metadata"]["name"] for doc in documents() if doc["kind"] == "ServiceAccount"]
        assert of_jobs["serviceAccountName"] == of_tasks["serviceAccountName"] == account
        (binding,) = [doc for doc in documents() if doc["kind"] == "RoleBinding"]
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account}]
        (role,) = [doc for doc in documents() if doc["kind"] == "Role"]
        assert role["metadata"]["name"] == binding["roleRef"]["name"]
        (rule,) = role["rules"]
        assert rule["resources"] == ["configmaps"]
        assert {"create", "get", "list", "watch", "update", "delete"} <= set(rule["verbs"])

    def test_flink_and_its_job_server_are_of_one_version_that_beam_supports(self):
        images = [container["image"] for container in containers()]
        flink = only(re.match(r"flink:(\d+\.\d+)\.\d+-", image)[1] for image in images if image.startswith("flink:"))
        (server,) = [image for image in images if "job_server" in image]
        assert server == f"apache/beam_flink{flink}_job_server:{BEAM}"
        assert flink in FlinkRunnerOptions.PUBLISHED_FLINK_VERSIONS

    def test_workers_and_client_have_one_image(self):
        own = [container["image"] for container in containers() if container["name"] in ("workers", "client")]
        assert len(own) == 2
        assert only(own)

    def test_a_pool_of_workers_is_where_the_task_manager_beside_it_looks(self):
        options = yaml.safe_load((ROOT / "configs" / "runners" / "flink_kubernetes.yaml").read_text())
        (pool,) = [container for container in containers() if "--worker_pool" in container.get("args", ())]
        assert options["environment_type"] == "EXTERNAL"
        assert options["environment_config"] == f"localhost:{pool['ports'][0]['containerPort']}"
        assert pool["readinessProbe"]["tcpSocket"]["port"] == pool["ports"][0]["containerPort"]
        (pod,) = [pod for pod in pods() if pool in pod["spec"]["containers"]]
        assert "taskmanager" in {container["name"] for container in pod["spec"]["containers"]}

    def test_parallelism_is_what_the_task_managers_have_when_one_is_lost(self):
        options = yaml.safe_load((ROOT / "configs" / "runners" / "flink_kubernetes.yaml").read_text())
        (settings,) = [document["data"] for document in documents() if document["kind"] == "ConfigMap"]
        flink = yaml.safe_load(settings["FLINK_PROPERTIES"])
        (managers,) = [doc for doc in documents() if doc["metadata"].get("name") == "maskdet-flink-taskmanager"]
        assert options["parallelism"] == (managers["spec"]["replicas"] - 1) * flink["taskmanager.numberOfTaskSlots"]

    def test_addresses_are_those_of_the_services(self):
        (settings,) = [document["data"] for document in documents() if document["kind"] == "ConfigMap"]
        (service,) = [document for document in documents() if document["kind"] == "Service"]
        name, ports = service["metadata"]["name"], {port["name"]: port["port"] for port in service["spec"]["ports"]}
        assert yaml.safe_load(settings["FLINK_PROPERTIES"])["jobmanager.rpc.address"] == name
        (server,) = [container for container in containers() if container["name"] == "job-server"]
        assert f"--flink-master={name}:{ports['rest']}" in server["args"]
        runner = yaml.safe_load((ROOT / "configs" / "runners" / "flink_kubernetes.yaml").read_text())
        assert runner["flink_master"] == f"{name}:{ports['rest']}"
        endpoint = yaml.safe_load((ROOT / "configs" / "runners" / "flink_kubernetes.yaml").read_text())["job_endpoint"]
        assert f"--job-port={endpoint.partition(':')[2]}" in server["args"]

    def test_the_client_s_command_is_one_of_maskdet(self):
        (client,) = [container for container in containers() if container["name"] == "client"]
        entry, command, *flags = client["command"]
        assert f'"{entry} = maskdet.cli.main:run"' in SETUP
        arguments, rest = command_parser(command, None).parse_known_args(flags)
        assert rest == []
        assert (ROOT / arguments.runner_config).is_file()


class TestNightlyOnKubernetes:
    kustomization = yaml.safe_load((NIGHTLY / "kustomization.yaml").read_text(encoding="utf-8"))
    cron = yaml.safe_load((NIGHTLY / "cronjob.yaml").read_text(encoding="utf-8"))
    pod = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]

    def test_every_file_has_its_part(self):
        named = {*self.kustomization["resources"], *self.kustomization["configMapGenerator"][0]["files"]}
        assert named == {path.name for path in NIGHTLY.iterdir()} - {"kustomization.yaml"}

    def test_its_command_and_settings_are_of_maskdet(self):
        (container,) = self.pod["containers"]
        entry, command, *flags = container["command"]
        assert f'"{entry} = maskdet.cli.main:run"' in SETUP
        arguments, rest = command_parser(command, None).parse_known_args(flags)
        assert rest == []
        folder, _, name = arguments.config.rpartition("/")
        assert load_yaml(ScoreSettings, NIGHTLY / name).source.key_names == ("site", "camera")
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in self.pod["volumes"]}
        assert volumes[mounts[folder]]["configMap"]["name"] == self.kustomization["configMapGenerator"][0]["name"]

    def test_it_runs_without_rights_that_it_does_not_need(self):
        (container,) = self.pod["containers"]
        account = yaml.safe_load((NIGHTLY / "serviceaccount.yaml").read_text(encoding="utf-8"))
        assert self.pod["serviceAccountName"] == account["metadata"]["name"]
        assert account["automountServiceAccountToken"] is False
        assert self.pod["securityContext"]["runAsNonRoot"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }

    def test_its_image_gets_its_tag_here(self):
        (container,) = self.pod["containers"]
        assert container["image"] == self.kustomization["images"][0]["name"]


def test_objects_of_kubernetes_fit_their_schemas():
    files = [*MANIFESTS, *(NIGHTLY / name for name in ("cronjob.yaml", "serviceaccount.yaml"))]
    found = [document for path in files for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))]
    assert len(found) >= len(files)
    for document in found:
        kubernetes_validate.validate(document, "1.29", strict=True)  # the oldest that starts sidecars


class TestFlinkOnThisMachine:
    options = yaml.safe_load((ROOT / "configs" / "runners" / "flink.yaml").read_text(encoding="utf-8"))
    settings = yaml.safe_load(cluster.SETTINGS.read_text(encoding="utf-8"))

    def test_beam_knows_its_options(self):
        options = parse_beam_options([], str(ROOT / "configs" / "runners" / "flink.yaml"))
        assert options.view_as(FlinkRunnerOptions).parallelism == self.options["parallelism"]
        assert json.loads(options.view_as(PortableOptions).environment_config) == self.options["environment_config"]

    def test_it_leads_to_the_cluster_that_is_started(self):
        assert self.options["job_endpoint"] == f"localhost:{cluster.Ports().job}"
        assert self.options["flink_master"] == f"localhost:{cluster.Ports().rest}"
        assert self.options["environment_config"]["command"] == cluster.BOOT

    def test_one_task_manager_has_room_for_all(self):
        managers = len(inspect.signature(cluster.FlinkCluster).parameters["cores"].default)
        assert managers == 2
        assert self.options["parallelism"] == (managers - 1) * self.settings["taskmanager.numberOfTaskSlots"]

    def test_what_holds_for_any_cluster_is_that_of_kubernetes_too(self):
        (found,) = [document["data"] for document in documents() if document["kind"] == "ConfigMap"]
        kubernetes = yaml.safe_load(found["FLINK_PROPERTIES"])
        for name in ("numberOfTaskSlots", "load-balance.mode"):
            assert kubernetes[f"taskmanager.{name}"] == self.settings[f"taskmanager.{name}"]
        for name in ("heartbeat.timeout", "heartbeat.interval", "restart-strategy.type"):
            assert kubernetes[name] == self.settings[name]

    @pytest.mark.parametrize("runner", ["flink", "flink_kubernetes"])
    def test_attempts_lie_so_far_apart_that_a_dead_worker_leaves_the_cache(self, runner):
        (found,) = [document["data"] for document in documents() if document["kind"] == "ConfigMap"]
        settings = {"flink": self.settings, "flink_kubernetes": yaml.safe_load(found["FLINK_PROPERTIES"])}[runner]
        options = yaml.safe_load((ROOT / "configs" / "runners" / f"{runner}.yaml").read_text(encoding="utf-8"))
        delay_s = int(settings["restart-strategy.fixed-delay.delay"].removesuffix(" s"))
        assert settings["restart-strategy.fixed-delay.attempts"] > 1
        assert 1000 * delay_s > options["environment_cache_millis"] > 0

    def test_the_guide_names_the_job_server_of_these_versions(self):
        flink = programs.FLINK_VERSION.rpartition(".")[0]
        guide = (ROOT / "docs" / "guides" / "flink.md").read_text(encoding="utf-8")
        assert f"beam-runners-flink-{flink}-job-server-{BEAM}.jar" in guide
        pom = programs.JOB_SERVER_POM.read_text(encoding="utf-8")
        assert f"<artifactId>beam-runners-flink-{flink}</artifactId>" in pom


METADATA = json.loads((ROOT / "docker" / "dataflow" / "metadata.json").read_text(encoding="utf-8"))
PARAMETERS = {parameter["name"]: parameter for parameter in METADATA["parameters"]}


class TestFlexTemplate:
    def flags(self):
        parser = command_parser("score", None)
        return {flag: action for action in parser._actions for flag in action.option_strings if flag.startswith("--")}

    def test_its_parameters_are_the_flags_of_the_command(self):
        own = {f"--{name}" for name in PARAMETERS} - {"--sdk_container_image"}
        assert own == set(self.flags()) - NOT_IN_TEMPLATE

    def test_those_that_a_run_needs_are_required(self):
        required = {name for name, parameter in PARAMETERS.items() if not parameter.get("isOptional")}
        assert required == {"input", "output", "sdk_container_image"}

    def test_each_is_described_and_checked(self):
        for name, parameter in PARAMETERS.items():
            assert set(parameter) <= {"name", "label", "helpText", "regexes", "isOptional"}, name
            assert parameter["label"][0].isupper(), name
            assert parameter["helpText"].endswith("."), name
            patterns = [re.compile(regex).pattern for regex in parameter["regexes"]]
            assert all(pattern.startswith("^") and pattern.endswith("$") for pattern in patterns), name

    @pytest.mark.parametrize(
        ("name", "taken", "refused"),
        [
            ("input", ["gs://bucket/photos", "gs://bucket", "gs://bucket/**/*.jpg"], ["/photos", "s3://b/p", "bucket"]),
            ("output", ["gs://bucket/tables"], ["gs://bucket", "gs://bucket/", "tables"]),
            ("model", ["builtin", "gs://bucket/models/a"], ["models/a", "built-in"]),
            ("backend", ["litert", "tensorflow", "onnx"], ["tf", "LiteRT"]),
            ("precision", ["int8", "float32"], ["float16"]),
            ("faces", ["detect", "whole"], ["all"]),
            ("template", ["{site}/{captured_at:%Y-%m-%d}/*.jpg"], ["/{site}/*.jpg"]),
            ("config", ["/template/configs/score.yaml"], ["score.yaml", "gs://bucket/score.yaml"]),
            ("runner-config", ["/template/configs/runners/dataflow_gpu.yaml"], ["dataflow.yaml"]),
            ("set", ["compliance.levels={day: [date]}", "packing.max_images=500"], ["=5", "packing.max_images"]),
            ("sdk_container_image", ["europe-docker.pkg.dev/p/r/m:1", "gcr.io/p/m@sha256:0f"], ["maskdet", "a/b"]),
        ],
    )  # fmt: skip
    def test_its_regexes_take_what_the_command_takes(self, name, taken, refused):
        regexes = PARAMETERS[name]["regexes"]
        assert all(re.match(regex, text) for regex in regexes for text in taken)
        assert not any(all(re.match(regex, text) for regex in regexes) for text in refused)

    def test_choices_are_those_of_the_settings(self):
        from maskdet.config import FacesSettings
        from maskdet.model.backends.registry import backend_names

        for name, choices in (
            ("backend", {"auto", *backend_names()}),
            ("faces", set(FacesSettings.model_fields["mode"].annotation.__args__)),
        ):
            (regex,) = PARAMETERS[name]["regexes"]
            assert set(regex.strip("^()$").split("|")) == choices

    def test_its_launcher_runs_the_command_although_the_folder_of_entry_points_has_an_inspect(self, tmp_path):
        environment = dict(instructions(ROOT / "docker/dataflow/Dockerfile"))["ENV"]
        assert environment.split("=")[1] == "/template/launch.py"
        command = [sys.executable, str(ROOT / "docker" / "dataflow" / "launch.py"), "--help"]
        found = subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert found.returncode == 0, found.stderr
        assert found.stdout.startswith("usage: maskdet score")

    def test_beam_knows_what_the_template_service_adds(self):
        added = [
            "--runner=DataflowRunner",
            "--project=p",
            "--region=r",
            "--job_name=nightly",
            "--template_location=gs://b/staging/template_launches/1/job_object",
            "--temp_location=gs://b/tmp",
            "--staging_location=gs://b/staging",
            "--service_account_email=a@b",
            "--num_workers=1",
            "--max_num_workers=3",
            "--machine_type=n2-standard-4",
            "--labels={\"team\": \"safety\"}",
            "--sdk_container_image=gcr.io/p/m:1",
        ]  # fmt: skip
        options: PipelineOptions = parse_beam_options(added, str(ROOT / "configs" / "runners" / "dataflow.yaml"))
        assert is_template_launch(options)
        assert options.view_as(WorkerOptions).machine_type == "n2-standard-4"
