//! The chart, rendered by helm; Compose's file and the workflow.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::LazyLock,
};

use serde_json::Value;
use sqlx::{AssertSqlSafe, PgPool};

use crate::{
    process::{Client, Program, TestFolder, url_of},
    repository, text,
};

/// Python with helm and the schemas, installed once and again when what is pinned changes.
static PYTHON: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("deploy");
    let list = repository("tests/deploy/requirements.txt");
    let (wanted, stamp) = (fs::read(&list).unwrap(), folder.join("installed"));
    let python = folder.join("bin/python");
    if fs::read(&stamp).ok().as_ref() != Some(&wanted) {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder));
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--no-deps", "--requirement"]).arg(&list));
        // Last, so that what was broken off is begun again.
        fs::write(stamp, wanted).unwrap();
    }
    python
});

fn run(command: &mut Command) -> Output {
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}; run tools/set-up --tests"));
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stdout));
    output
}

fn check(arguments: &[&str]) -> Output {
    run(Command::new(&*PYTHON).arg("tests/deploy/check.py").args(arguments).current_dir(repository("")))
}

/// The chart's documents with these values, each valid.
fn render(values: &[&str]) -> Vec<Value> {
    let folder = PYTHON.parent().unwrap().to_str().unwrap();
    let mut arguments = vec![folder, "deploy/helm/fourstep"];
    for value in values {
        // Variables are texts, also those that look like numbers.
        arguments.extend([if value.starts_with("environment.") { "--set-string" } else { "--set" }, value]);
    }
    serde_json::from_slice(&check(&arguments).stdout).unwrap()
}

fn find<'a>(documents: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = documents.iter().find(|document| document["kind"] == kind && document["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind} {name}"))
}

#[test]
fn compose_and_the_workflow_follow_their_schemas() {
    let compose = check(&["--files", "deploy/compose.yaml", ".github/workflows/ci.yaml"]).stdout;
    let services = serde_json::from_slice::<Value>(&compose).unwrap()["services"].take();
    let server = &services["server"]["healthcheck"]["test"];
    assert!(server.as_array().unwrap().contains(&"--live".into()), "it has no workers of its own: {server}");
    let devices = ["worker", "worker-1"].map(|worker| {
        services[worker]["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"][0].as_str().unwrap()
    });
    assert_ne!(devices[0], devices[1]);
}

#[test]
fn the_chart_is_valid_with_its_defaults_and_with_everything_turned_the_other_way() {
    let documents = render(&[]);
    for (kind, name) in [
        ("Deployment", "demo-api"),
        ("Deployment", "demo-worker"),
        ("HorizontalPodAutoscaler", "demo-api"),
        ("PodDisruptionBudget", "demo-api"),
        ("ScaledObject", "demo-worker"),
        ("TriggerAuthentication", "demo-worker"),
        ("Job", "demo-migrate"),
        ("PersistentVolumeClaim", "demo-data"),
        ("ServiceMonitor", "demo"),
    ] {
        find(&documents, kind, name);
    }
    let plain = render(&[
        "api.autoscaling.enabled=false",
        "worker.autoscaling.enabled=false",
        "worker.pull=false",
        "worker.requireWeights=false",
        "serviceMonitor.enabled=false",
        "data.existingClaim=mine",
        "api.publicUrl=https://images.example.com",
        "secretEnvironment[0].name=FOURSTEP_WEBHOOKS__KEY",
        "secretEnvironment[0].secret=fourstep-webhooks",
        "secretEnvironment[0].key=key",
    ]);
    let kinds: Vec<_> = plain.iter().map(|document| document["kind"].as_str().unwrap()).collect();
    for absent in ["ScaledObject", "HorizontalPodAutoscaler", "ServiceMonitor", "PersistentVolumeClaim"] {
        assert!(!kinds.contains(&absent), "{kinds:?}");
    }
    assert_eq!(find(&plain, "Deployment", "demo-worker")["spec"]["replicas"], 1);
}

#[test]
fn no_pod_is_root_or_writes_outside_its_volume() {
    for document in render(&[]) {
        let pod = &document["spec"]["template"]["spec"];
        for (_, container) in containers(std::slice::from_ref(&document)) {
            assert_eq!(pod["securityContext"]["runAsUser"], 10001, "{document}");
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{document}");
            assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true, "{document}");
            assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false, "{document}");
            assert_eq!(container["securityContext"]["capabilities"]["drop"][0], "ALL", "{document}");
        }
    }
}

/// Every container of the documents, with the name of its pod's owner.
fn containers(documents: &[Value]) -> Vec<(&str, &Value)> {
    let mut all = Vec::new();
    for document in documents {
        let pod = &document["spec"]["template"]["spec"];
        let containers = ["containers", "initContainers"].iter().filter_map(|kind| pod[kind].as_array()).flatten();
        all.extend(containers.map(|container| (document["metadata"]["name"].as_str().unwrap(), container)));
    }
    all
}

#[test]
fn every_container_is_told_what_is_set_and_each_of_it_once() {
    let documents = render(&[
        "environment.HTTPS_PROXY=http://proxy:3128",
        "environment.FOURSTEP_SERVER__SHUTDOWN_SECONDS=5",
        "environment.FOURSTEP_SERVER__PUBLIC_URL=http://elsewhere",
        "environment.FOURSTEP_METRICS__LISTEN=127.0.0.1:1",
        "environment.HF_TOKEN=plain",
        "api.publicUrl=https://images.example.com",
        "worker.drainSeconds=120",
        "secretEnvironment[0].name=HF_TOKEN",
        "secretEnvironment[0].secret=hugging-face",
        "secretEnvironment[0].key=token",
    ]);
    let containers = containers(&documents);
    assert_eq!(containers.len(), 4, "API, migration, worker and what fetches its weights");
    for (owner, container) in containers {
        let variables = container["env"].as_array().unwrap();
        let named = |name: &str| {
            let found: Vec<_> = variables.iter().filter(|variable| variable["name"] == name).collect();
            assert_eq!(found.len(), 1, "{owner}, {}: {name}", container["name"]);
            found[0]
        };
        variables.iter().for_each(|variable| _ = named(variable["name"].as_str().unwrap()));
        assert_eq!(named("HTTPS_PROXY")["value"], "http://proxy:3128");
        assert_eq!(named("HF_TOKEN")["valueFrom"]["secretKeyRef"]["name"], "hugging-face");
        assert_eq!(named("FOURSTEP_METRICS__LISTEN")["value"], "0.0.0.0:9464", "where its port is");
        let (drain, url) = (named("FOURSTEP_SERVER__SHUTDOWN_SECONDS"), named("FOURSTEP_SERVER__PUBLIC_URL"));
        assert_eq!(drain["value"], if container["name"] == "worker" { "120" } else { "5" });
        assert_eq!(
            url["value"],
            if container["name"] == "api" { "https://images.example.com" } else { "http://elsewhere" }
        );
    }
}

#[test]
fn a_new_worker_waits_for_no_gpu_and_for_its_own_model() {
    let documents = render(&["worker.model=another-model", "worker.minReadySeconds=90"]);
    let worker = &find(&documents, "Deployment", "demo-worker")["spec"];
    assert_eq!(worker["strategy"]["rollingUpdate"]["maxSurge"], 0, "all GPUs may be taken");
    assert_eq!(
        (&worker["strategy"]["rollingUpdate"]["maxUnavailable"], &worker["minReadySeconds"]),
        (&1.into(), &90.into())
    );
    let pull = &worker["template"]["spec"]["initContainers"][0]["args"];
    assert_eq!(pull, &serde_json::json!(["pull", "another-model"]));
}

/// `docs/operations.md` and `values.yaml` say the sum.
#[test]
fn the_connections_of_all_pods_are_as_many_as_is_documented() {
    let documents = render(&[]);
    let worker = &find(&documents, "Deployment", "demo-worker")["spec"]["template"]["spec"]["containers"][0]["env"];
    let mut variables = worker.as_array().unwrap().iter();
    let pool = variables.find(|variable| variable["name"] == "FOURSTEP_DATABASE__POOL_SIZE").unwrap();
    let pool: i64 = pool["value"].as_str().unwrap().parse().unwrap();
    let most = |kind, name, field| find(&documents, kind, name)["spec"][field].as_i64().unwrap();
    let apis = most("HorizontalPodAutoscaler", "demo-api", "maxReplicas");
    let workers = most("ScaledObject", "demo-worker", "maxReplicaCount");
    let defaults: toml::Table = text("config/default.toml").parse().unwrap();
    let default = defaults["database"]["pool_size"].as_integer().unwrap();
    let sum = apis * (default + 2) + workers * (pool + 3);
    assert!(text("docs/operations.md").contains(&format!("= {sum}, and")), "{sum}");
    assert!(text("deploy/helm/fourstep/values.yaml").contains(&format!("that is {sum}, and")), "{sum}");
}

#[test]
fn a_worker_is_given_longer_than_it_takes_to_drain() {
    let documents = render(&["worker.drainSeconds=120"]);
    let pod = &find(&documents, "Deployment", "demo-worker")["spec"]["template"]["spec"];
    assert!(pod["terminationGracePeriodSeconds"].as_i64().unwrap() > 120, "{pod}");
    let environment = pod["containers"][0]["env"].as_array().unwrap();
    let drain = environment.iter().find(|variable| variable["name"] == "FOURSTEP_SERVER__SHUTDOWN_SECONDS").unwrap();
    assert_eq!(drain["value"], "120");
}

/// KEDA divides what this query answers by `targetQueryValue`.
#[sqlx::test]
async fn the_autoscaler_is_told_how_many_seconds_of_work_wait(pool: PgPool) {
    let documents = render(&[]);
    let trigger = &find(&documents, "ScaledObject", "demo-worker")["spec"]["triggers"][0];
    assert_eq!((&trigger["type"], &trigger["metricType"]), (&"postgresql".into(), &"AverageValue".into()));
    let query = trigger["metadata"]["query"].as_str().unwrap();
    let seconds = async || sqlx::query_scalar::<_, i64>(AssertSqlSafe(query)).fetch_one(&pool).await.unwrap();
    assert_eq!(seconds().await, 0);

    let (folder, url) = (TestFolder::new(), url_of(&pool));
    let server = Program::serve(&folder.0, Some(&url), &["--workers", "0"]);
    let client = Client::of(&server, &folder.0);
    let mut waiting = Vec::new();
    for _ in 0..5 {
        waiting.push(client.create().await.unwrap());
    }
    assert_eq!(seconds().await, 10, "two seconds each, as long as nothing is known");

    let worker = Program::worker(&folder.0, &url, 1);
    for id in &waiting {
        assert_eq!(client.terminal(id).await["status"], "succeeded");
    }
    worker.kill();
    assert_eq!(seconds().await, 0, "nothing waits");
    let runs: i64 =
        sqlx::query_scalar("select count(*) from ledger where device_us > 0").fetch_one(&pool).await.unwrap();
    assert_eq!(runs, 5);
    for _ in 0..5 {
        client.create().await.unwrap();
    }
    assert!((1..10).contains(&seconds().await), "as long as those before took: {} s", seconds().await);
}
