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
    repository,
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
    values.iter().for_each(|value| arguments.extend(["--set", value]));
    serde_json::from_slice(&check(&arguments).stdout).unwrap()
}

fn find<'a>(documents: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = documents.iter().find(|document| document["kind"] == kind && document["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind} {name}"))
}

#[test]
fn compose_and_the_workflow_follow_their_schemas() {
    check(&["--files", "deploy/compose.yaml", ".github/workflows/ci.yaml"]);
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
        let containers = ["containers", "initContainers"].iter().filter_map(|kind| pod[kind].as_array()).flatten();
        for container in containers {
            assert_eq!(pod["securityContext"]["runAsUser"], 10001, "{document}");
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{document}");
            assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true, "{document}");
            assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false, "{document}");
            assert_eq!(container["securityContext"]["capabilities"]["drop"][0], "ALL", "{document}");
        }
    }
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
