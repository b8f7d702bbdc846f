//! The rules of layering, of what is refused, and of the manual itself.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    layers::{DEFAULTS, documented_keys},
    *,
};

/// A file that is there as long as the test.
struct TemporaryFile(PathBuf);

impl TemporaryFile {
    fn with(content: &str) -> Self {
        let path = std::env::temp_dir().join(format!("fourstep-config-{}.toml", uuid::Uuid::new_v4()));
        std::fs::write(&path, content).expect("writable");
        Self(path)
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn environment(variables: &[(&str, &str)]) -> Vec<(String, String)> {
    let with_home = [("HOME", "/home/somebody")].iter().chain(variables);
    with_home.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn load(file: &str, variables: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Result<Config, Error> {
    let file = TemporaryFile::with(file);
    let flags = flags.iter().map(|(key, value)| Override { key, flag: "--flag", value: (*value).to_owned() });
    Config::load(Some(&file.0), environment(variables), flags)
}

fn refusal(file: &str, variables: &[(&str, &str)], flags: &[(&'static str, &str)]) -> String {
    load(file, variables, flags).expect_err("refused").to_string()
}

#[test]
fn the_shipped_defaults_are_valid_and_complete() {
    let config = Config::load(None, environment(&[]), []).expect("valid");
    assert_eq!(config.data.dir, Path::new("/home/somebody/.local/share/fourstep"));
    assert_eq!(config.artifacts_folder(), Path::new("/home/somebody/.local/share/fourstep/artifacts"));
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8000");
    assert_eq!(config.queue.lease, Duration::from_secs(15));
    assert_eq!(config.queue.retention, Duration::from_secs(24 * 3600));
    assert_eq!(config.worker.count, WorkerCount::Auto);
    assert_eq!((config.database.url, config.worker.weights), (None, None));
}

#[test]
fn every_option_is_explained_by_a_comment_above_it() {
    let mut above = "";
    let mut options = 0;
    for line in DEFAULTS.lines() {
        if !line.starts_with(['#', '[']) && !line.is_empty() {
            options += 1;
            assert!(above.starts_with("# "), "{line} is not explained");
        }
        above = line;
    }
    assert_eq!(options, documented_keys().len());
}

#[test]
fn a_flag_hides_the_environment_which_hides_the_file_which_hides_the_default() {
    let file = "[server]\nlisten = '127.0.0.1:1'";
    let variables = [("FOURSTEP_SERVER__LISTEN", "127.0.0.1:2")];
    let port = |config: Config| config.server.listen.port();
    assert_eq!(load("", &[], &[]).map(port).expect("valid"), 8000);
    assert_eq!(load(file, &[], &[]).map(port).expect("valid"), 1);
    assert_eq!(load(file, &variables, &[]).map(port).expect("valid"), 2);
    assert_eq!(load(file, &variables, &[("server.listen", "127.0.0.1:3")]).map(port).expect("valid"), 3);
}

#[test]
fn the_environment_is_text_and_every_kind_of_option_reads_it() {
    let config = load(
        "",
        &[
            ("FOURSTEP_SERVER__MAX_CONNECTIONS", "7"),
            ("FOURSTEP_SERVER__PUBLIC_URL", "https://images.example.com/"),
            ("FOURSTEP_QUEUE__RENEW_SECONDS", "0.5"),
            ("FOURSTEP_WORKER__COUNT", "2"),
            ("FOURSTEP_WORKER__DEVICE", "cuda:1"),
            ("FOURSTEP_WORKER__MODELS", "one, two"),
            ("FOURSTEP_ARTIFACTS__FSYNC", "false"),
            ("FOURSTEP_MOCK_STEP_MS", "0"),
            ("FOURSTEP_WORKER__WEIGHTS", ""),
        ],
        &[],
    )
    .expect("valid");
    assert_eq!(config.server.max_connections, 7);
    assert_eq!(config.server.public_url.as_deref(), Some("https://images.example.com"));
    assert_eq!(config.queue.renew, Duration::from_millis(500));
    assert_eq!((config.worker.count, config.worker.device), (WorkerCount::Exactly(2), DeviceChoice::Cuda(1)));
    assert_eq!(config.worker.models, ["one", "two"]);
    assert!(!config.artifacts.fsync);
    assert_eq!((config.worker.mock_step, config.worker.weights), (Duration::ZERO, None));
}

#[test]
fn a_file_may_hold_numbers_lists_and_paths_as_toml_has_them() {
    let file = "[worker]\ncount = 0\nmodels = ['one']\nweights = '/models/sdxl'\nunet = ''\n[queue]\nlease_seconds = 2.5\nrenew_seconds = 1";
    let config = load(file, &[], &[]).expect("valid");
    assert_eq!((config.worker.count, config.worker.models), (WorkerCount::Exactly(0), vec!["one".to_owned()]));
    assert_eq!((config.worker.weights, config.worker.unet), (Some(PathBuf::from("/models/sdxl")), None));
    assert_eq!(config.queue.lease, Duration::from_millis(2500));
}

#[test]
fn port_replaces_the_port_and_leaves_the_address() {
    let listen = |variables: &[_], flags: &[_]| load("", variables, flags).expect("valid").server.listen.to_string();
    assert_eq!(listen(&[("PORT", "9000")], &[]), "127.0.0.1:9000");
    assert_eq!(listen(&[("PORT", "9000"), ("FOURSTEP_SERVER__LISTEN", "0.0.0.0:8000")], &[]), "0.0.0.0:9000");
    assert_eq!(listen(&[("PORT", "9000")], &[("server.listen", "127.0.0.1:0")]), "127.0.0.1:0");
    assert!(refusal("", &[("PORT", "tcp://10.0.0.1:80")], &[]).contains("PORT"));
}

#[test]
fn the_database_may_come_from_its_usual_variable_or_a_file() {
    let secret = TemporaryFile::with("postgres://from-file/\n");
    let file = secret.0.display().to_string();
    let url =
        |variables: &[_]| load("", variables, &[]).expect("valid").database.url.map(|url| url.expose().to_owned());
    assert_eq!(url(&[("DATABASE_URL", "postgres://usual/")]).as_deref(), Some("postgres://usual/"));
    assert_eq!(url(&[("DATABASE_URL_FILE", &file)]).as_deref(), Some("postgres://from-file/"));
    assert_eq!(url(&[("FOURSTEP_DATABASE__URL_FILE", &file)]).as_deref(), Some("postgres://from-file/"));
    let both = [("DATABASE_URL", "postgres://usual/"), ("FOURSTEP_DATABASE__URL", "postgres://ours/")];
    assert_eq!(url(&both).as_deref(), Some("postgres://ours/"));
    let twice = refusal("", &[("DATABASE_URL", "postgres://usual/"), ("DATABASE_URL_FILE", &file)], &[]);
    assert!(twice.contains("DATABASE_URL_FILE"), "{twice}");
    assert!(refusal("", &[("DATABASE_URL_FILE", "/no/such/file")], &[]).contains("/no/such/file"));
}

#[test]
fn a_bucket_has_its_usual_variables_which_mean_nothing_without_one() {
    let usual = [
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "hunter2"),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ENDPOINT_URL", "https://every.example.com"),
        ("AWS_ENDPOINT_URL_S3", "https://s3.example.com"),
    ];
    let file = "[artifacts]\nurl = 's3://pictures/some/prefix/'";
    let config = load(file, &usual, &[]).expect("valid");
    assert_eq!(config.bucket(), Some(("pictures", "some/prefix")));
    let Artifacts { endpoint, region, access_key_id, secret_access_key, .. } = config.artifacts;
    assert_eq!(endpoint.as_deref(), Some("https://s3.example.com"));
    assert_eq!((region.as_str(), access_key_id.as_deref()), ("eu-central-1", Some("id")));
    assert_eq!(secret_access_key.map(|secret| secret.expose().to_owned()).as_deref(), Some("hunter2"));

    let half = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_ENDPOINT_URL", "s3.example.com")];
    assert_eq!(load("", &half, &[]).expect("of another program").bucket(), None);
    assert!(refusal(file, &half[..1], &[]).contains("artifacts.access_key_id"));
    assert!(refusal(file, &half[1..], &[]).contains("artifacts.endpoint"));
    for url in ["pictures", "s3://", "s3:///prefix", "https://pictures", "s3://a b", "s3://a/b//c", "s3://a/b?c"] {
        assert!(refusal("", &[("FOURSTEP_ARTIFACTS__URL", url)], &[]).contains("artifacts.url"), "{url}");
    }
    let both = "[artifacts]\nurl = 's3://pictures'\nfolder = '/pictures'";
    assert!(refusal(both, &[], &[]).contains("artifacts.folder"));
}

#[test]
fn a_key_that_does_not_exist_is_refused_with_the_one_that_was_meant() {
    let typo = refusal("[server]\nlistne = '127.0.0.1:1'", &[], &[]);
    assert!(typo.contains("server.listne") && typo.contains(".toml"), "{typo}");
    assert!(typo.ends_with(r#"did you mean "server.listen"?"#), "{typo}");
    let elsewhere = refusal("lease_seconds = 3", &[], &[]);
    assert!(elsewhere.ends_with(r#"did you mean "queue.lease_seconds"?"#), "{elsewhere}");
    let variable = refusal("", &[("FOURSTEP_SERVER__LISTENN", "x")], &[]);
    assert!(variable.contains("FOURSTEP_SERVER__LISTENN") && variable.contains(r#""FOURSTEP_SERVER__LISTEN"?"#));
    assert!(!refusal("[payments]\ncurrency = 'EUR'", &[], &[]).contains("did you mean"));
    assert!(
        refusal("", &[("FOURSTEP_SERVER__LISTEN_FILE", "/a")], &[]).contains("LISTEN_FILE"),
        "only secrets have twins"
    );
}

#[test]
fn variables_that_kubernetes_makes_for_a_service_of_our_name_are_left_alone() {
    let variables = [("FOURSTEP_PORT", "tcp://10.0.0.1:80"), ("FOURSTEP_SERVICE_HOST", "10.0.0.1")];
    assert!(load("", &variables, &[]).is_ok());
}

#[test]
fn a_wrong_value_is_refused_with_its_key_and_its_origin() {
    for (key, variable, value) in [
        ("server.listen", "FOURSTEP_SERVER__LISTEN", "localhost"),
        ("server.max_connections", "FOURSTEP_SERVER__MAX_CONNECTIONS", "many"),
        ("server.max_connections", "FOURSTEP_SERVER__MAX_CONNECTIONS", "0"),
        ("server.shutdown_seconds", "FOURSTEP_SERVER__SHUTDOWN_SECONDS", "1e300"),
        ("server.public_url", "FOURSTEP_SERVER__PUBLIC_URL", "images.example.com"),
        ("database.url", "DATABASE_URL", "mysql://localhost"),
        ("database.pool_size", "FOURSTEP_DATABASE__POOL_SIZE", "-1"),
        ("queue.renew_seconds", "FOURSTEP_QUEUE__RENEW_SECONDS", "0"),
        ("queue.sweep_seconds", "FOURSTEP_QUEUE__SWEEP_SECONDS", "nan"),
        ("queue.lease_seconds", "FOURSTEP_QUEUE__LEASE_SECONDS", "10"),
        ("worker.dtype", "FOURSTEP_WORKER__DTYPE", "fp16"),
        ("worker.unet", "FOURSTEP_WORKER__UNET", "unet.safetensors"),
        ("worker.mock_step_ms", "FOURSTEP_MOCK_STEP_MS", "-1"),
        ("artifacts.fsync", "FOURSTEP_ARTIFACTS__FSYNC", "perhaps"),
    ] {
        let refusal = refusal("", &[(variable, value)], &[]);
        assert!(refusal.contains(key) && refusal.contains(variable), "{variable}={value}: {refusal}");
    }
    assert!(refusal("[server", &[], &[]).contains(".toml"));
}

#[test]
fn a_secret_is_never_shown() {
    let variables = environment(&[("DATABASE_URL", "postgres://user:hunter2@host/name")]);
    let layers = Layers::read(None, variables, []).expect("valid");
    let shown = format!("{:?} {:?}", layers.settings(), layers.resolve().expect("valid"));
    assert!(shown.contains(Secret::MASK) && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn settings_tell_where_each_value_came_from() {
    let flag = Override { key: "worker.count", flag: "--workers", value: "3".to_owned() };
    let layers = Layers::read(None, environment(&[("PORT", "9000")]), [flag]).expect("valid");
    let settings = layers.settings();
    let of = |key: &str| settings.iter().find(|setting| setting.key == key).expect("present");
    assert_eq!(
        (of("server.listen").value.as_str(), of("server.listen").origin.as_deref()),
        (r#""127.0.0.1:9000""#, Some("PORT"))
    );
    assert_eq!(of("worker.count").origin.as_deref(), Some("--workers"));
    assert_eq!((of("queue.lease_seconds").value.as_str(), of("queue.lease_seconds").origin.as_deref()), ("15", None));
    assert_eq!(
        settings.iter().map(|setting| &setting.key).collect::<Vec<_>>(),
        documented_keys().iter().collect::<Vec<_>>()
    );
}

#[test]
fn without_a_home_the_data_folder_must_be_named() {
    let refusal = Config::load(None, [], []).expect_err("refused").to_string();
    assert!(refusal.contains("data.dir") && refusal.contains("--data-dir"), "{refusal}");
}
