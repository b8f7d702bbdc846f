//! Where settings come from: defaults, a file, the environment, flags; each layer hides the ones below it.
//!
//! `config/default.toml` names every key there is, so it also tells which keys of the other layers are mistakes. Every
//! value remembers its origin, for error messages and `fourstep config show`.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use ::config::{ConfigBuilder, ConfigError, File, FileFormat, Map, Source, Value, ValueKind, builder::DefaultState};

use super::{Config, Secret};

/// The manual: `config/default.toml`.
pub(super) const DEFAULTS: &str = include_str!("../../config/default.toml");
const PREFIX: &str = "FOURSTEP_";
/// Variables known by other names than the systematic one, which hides them.
const ALIASES: [(&str, &str); 10] = [
    ("DATABASE_URL", "database.url"),
    ("FOURSTEP_MOCK_STEP_MS", "worker.mock_step_ms"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "traces.endpoint"),
    ("AWS_ENDPOINT_URL", "artifacts.endpoint"),
    ("AWS_ENDPOINT_URL_S3", "artifacts.endpoint"),
    ("AWS_DEFAULT_REGION", "artifacts.region"),
    ("AWS_REGION", "artifacts.region"),
    ("AWS_ACCESS_KEY_ID", "artifacts.access_key_id"),
    ("AWS_SECRET_ACCESS_KEY", "artifacts.secret_access_key"),
    ("AWS_SESSION_TOKEN", "artifacts.session_token"),
];
/// Keys whose value is never shown and whose variables may name a file instead.
const SECRETS: [&str; 4] = ["database.url", "webhooks.key", "artifacts.secret_access_key", "artifacts.session_token"];

/// A setting made by a flag.
#[derive(Clone, Debug)]
pub struct Override {
    /// The key, as `server.listen`.
    pub key: &'static str,
    /// The flag, as `--listen`.
    pub flag: &'static str,
    /// The value as it was typed.
    pub value: String,
}

/// A key with what is in force for it, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The key, as `server.listen`.
    pub key: String,
    /// The value as TOML; a secret is masked.
    pub value: String,
    /// The file, variable or flag that set it; `None` for a default.
    pub origin: Option<String>,
}

/// Why the configuration cannot be used. Each names the key and where it was set.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that was named cannot be read.
    #[error("{path} (from {origin}) cannot be read")]
    Unreadable {
        /// Which file.
        path: String,
        /// Who named it.
        origin: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{path} is not a valid configuration file")]
    Malformed {
        /// Which file.
        path: String,
        /// Where in it and why.
        source: ConfigError,
    },
    /// No such option.
    #[error("{origin}: there is no option {key:?}{}", suggestion.as_ref().map(|key| format!("; did you mean {key:?}?")).unwrap_or_default())]
    UnknownKey {
        /// What was set.
        key: String,
        /// Where.
        origin: String,
        /// The option that is most like it.
        suggestion: Option<String>,
    },
    /// The value is not of the option's kind, or breaks a rule.
    #[error("{key}: {reason} (set by {origin})")]
    WrongValue {
        /// Which option.
        key: String,
        /// What it must be.
        reason: String,
        /// Where it was set.
        origin: String,
    },
    /// The layers could not be laid over each other.
    #[error("the configuration cannot be read")]
    Unusable(#[source] ConfigError),
    /// A variable cannot be used as it is.
    #[error("{variable} {reason}")]
    Variable {
        /// Which variable.
        variable: String,
        /// Why.
        reason: String,
    },
}

/// All settings with their origins, before they are given types.
#[derive(Debug)]
pub struct Layers {
    merged: ::config::Config,
    keys: Vec<String>,
}

/// One source's values by key.
#[derive(Clone, Debug, Default)]
struct Layer(Vec<(String, Value)>);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.0.iter().cloned().collect())
    }
}

impl Layers {
    /// Reads every source and refuses keys that do not exist.
    pub fn read(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        overrides: impl IntoIterator<Item = Override>,
    ) -> Result<Self, Error> {
        // An empty variable is how compose files and shells spell "not set".
        let environment: HashMap<String, String> =
            environment.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        let defaults = Layer::parse(DEFAULTS, None).map_err(Error::Unusable)?;
        let keys = documented_keys();

        let mut builder = ::config::Config::builder().add_source(defaults).add_source(computed_defaults(&environment));
        let file = file
            .map(|path| (path.to_owned(), "--config"))
            .or_else(|| environment.get("FOURSTEP_CONFIG").map(|path| (PathBuf::from(path), "FOURSTEP_CONFIG")));
        if let Some((path, named_by)) = file {
            builder = builder.add_source(Layer::from_file(&path, named_by)?.of_known_keys(&keys)?);
        }
        builder = builder.add_source(Layer::from_environment(&environment, &keys)?);
        if let Some(port) = environment.get("PORT") {
            builder = replace_port(builder, port)?;
        }
        let flags = overrides.into_iter().map(|set| (set.key.to_owned(), value(set.flag, set.value))).collect();
        builder = builder.add_source(Layer(flags).of_known_keys(&keys)?);
        Ok(Self { merged: builder.build().map_err(Error::Unusable)?, keys })
    }

    /// Gives every setting its type and checks the rules between them.
    pub fn resolve(&self) -> Result<Config, Error> {
        let mut config: Config = self.merged.clone().try_deserialize().map_err(|error| self.explain(error))?;
        if config.data.dir.as_os_str().is_empty() {
            let reason =
                "not set, and neither are HOME and XDG_DATA_HOME to make a default of; name a folder with --data-dir";
            return Err(self.wrong("data.dir", reason.to_owned()));
        }
        // The database's processes and ours do not share a working directory.
        config.data.dir =
            std::path::absolute(&config.data.dir).map_err(|error| self.wrong("data.dir", error.to_string()))?;
        if let Some(url) = &mut config.server.public_url {
            url.truncate(url.trim_end_matches('/').len());
        }
        config.check().map_err(|(key, reason)| self.wrong(key, reason))?;
        Ok(config)
    }

    /// Every setting in the order of `config/default.toml`.
    pub fn settings(&self) -> Vec<Setting> {
        self.keys
            .iter()
            .filter_map(|key| {
                let value = self.value(key)?;
                let secret = SECRETS.contains(&key.as_str()) && value.kind != ValueKind::String(String::new());
                let shown = if secret { format!("{:?}", Secret::MASK) } else { as_toml(&value.kind) };
                Some(Setting { key: key.clone(), value: shown, origin: value.origin().map(str::to_owned) })
            })
            .collect()
    }

    /// The merged value; asking the merged configuration itself would lose its origin.
    fn value(&self, key: &str) -> Option<&Value> {
        key.split('.').try_fold(&self.merged.cache, |value, name| match &value.kind {
            ValueKind::Table(table) => table.get(name),
            _ => None,
        })
    }

    fn wrong(&self, key: &str, reason: String) -> Error {
        let origin = self.value(key).and_then(Value::origin).unwrap_or("nobody").to_owned();
        Error::WrongValue { key: key.to_owned(), reason, origin }
    }

    fn explain(&self, error: ConfigError) -> Error {
        match error {
            ConfigError::Type { key: Some(key), unexpected, expected, .. } => {
                self.wrong(&key, format!("{unexpected} where {expected} is expected"))
            }
            ConfigError::At { key: Some(key), error, .. } => self.wrong(&key, error.to_string()),
            other => Error::Unusable(other),
        }
    }
}

impl Layer {
    fn parse(text: &str, origin: Option<&str>) -> Result<Self, ConfigError> {
        fn flatten(prefix: &str, table: Map<String, Value>, origin: Option<&str>, values: &mut Vec<(String, Value)>) {
            for (name, value) in table {
                let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
                match value.kind {
                    ValueKind::Table(table) => flatten(&key, table, origin, values),
                    kind => values.push((key, Value::new(origin.map(str::to_owned).as_ref(), kind))),
                }
            }
        }
        let mut values = Vec::new();
        flatten("", File::from_str(text, FileFormat::Toml).collect()?, origin, &mut values);
        Ok(Self(values))
    }

    fn from_file(path: &Path, named_by: &str) -> Result<Self, Error> {
        let origin = path.display().to_string();
        let text = read_file(path, named_by)?;
        Self::parse(&text, Some(&origin)).map_err(|source| Error::Malformed { path: origin, source })
    }

    fn from_environment(environment: &HashMap<String, String>, keys: &[String]) -> Result<Self, Error> {
        // Where a key is there twice, the last one counts: the systematic name.
        let mut values = Vec::new();
        for (variable, key) in ALIASES {
            values.extend(read_variable(environment, variable, key)?.map(|value| (key.to_owned(), value)));
        }
        for key in keys {
            values.extend(read_variable(environment, &variable_of(key), key)?.map(|value| (key.clone(), value)));
        }
        // Only names with two underscores are surely ours: Kubernetes gives every container of a namespace variables
        // like FOURSTEP_PORT when one of its services is called fourstep.
        for variable in environment.keys().filter(|name| name.starts_with(PREFIX) && name.contains("__")) {
            let known = |key: &String| {
                let name = variable_of(key);
                *variable == name || (SECRETS.contains(&key.as_str()) && *variable == format!("{name}_FILE"))
            };
            if !keys.iter().any(known) {
                let key = variable[PREFIX.len()..].replace("__", ".").to_lowercase();
                let suggestion = closest(&key, keys).map(|key| variable_of(&key));
                return Err(Error::UnknownKey { key: variable.clone(), origin: "environment".to_owned(), suggestion });
            }
        }
        Ok(Self(values))
    }

    /// Without what is not set; refused if it holds a key that does not exist.
    fn of_known_keys(mut self, keys: &[String]) -> Result<Self, Error> {
        if let Some((key, value)) = self.0.iter().find(|(key, _)| !keys.contains(key)) {
            let origin = value.origin().unwrap_or("the defaults").to_owned();
            return Err(Error::UnknownKey { key: key.clone(), origin, suggestion: closest(key, keys) });
        }
        self.0.retain(|(_, value)| value.kind != ValueKind::String(String::new()));
        Ok(self)
    }
}

/// Every key there is, in the order of the manual, which a parsed table does not keep.
pub(super) fn documented_keys() -> Vec<String> {
    let mut section = "";
    let mut keys = Vec::new();
    for line in DEFAULTS.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name;
        } else if let Some((key, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            keys.push(format!("{section}.{key}"));
        }
    }
    keys
}

/// Defaults that depend on who runs the program.
fn computed_defaults(environment: &HashMap<String, String>) -> Layer {
    let shared = environment.get("XDG_DATA_HOME").map(PathBuf::from);
    let home = environment.get("HOME").map(|home| Path::new(home).join(".local/share"));
    let dir = shared.or(home).map(|parent| parent.join("fourstep").display().to_string());
    Layer(dir.map(|dir| ("data.dir".to_owned(), Value::new(None, dir))).into_iter().collect())
}

/// A variable, or for a secret the content of the file that its twin names.
fn read_variable(environment: &HashMap<String, String>, variable: &str, key: &str) -> Result<Option<Value>, Error> {
    let twin = format!("{variable}_FILE");
    let file = environment.get(&twin).filter(|_| SECRETS.contains(&key));
    match (environment.get(variable), file) {
        (Some(_), Some(_)) => {
            Err(Error::Variable { variable: variable.to_owned(), reason: format!("and {twin} are both set; keep one") })
        }
        (Some(text), None) => Ok(Some(value(variable, text.clone()))),
        (None, Some(path)) => Ok(Some(value(&twin, read_file(Path::new(path), &twin)?.trim().to_owned()))),
        (None, None) => Ok(None),
    }
}

fn replace_port(builder: ConfigBuilder<DefaultState>, port: &str) -> Result<ConfigBuilder<DefaultState>, Error> {
    let number = port.parse().map_err(|_| Error::Variable {
        variable: "PORT".to_owned(),
        reason: format!("is {port:?}, which is not a port number"),
    })?;
    let merged = builder.clone().build().map_err(Error::Unusable)?;
    let Ok(mut listen) = merged.get::<SocketAddr>("server.listen") else {
        // Wrong without PORT as well; told when everything is there.
        return Ok(builder);
    };
    listen.set_port(number);
    Ok(builder.add_source(Layer(vec![("server.listen".to_owned(), value("PORT", listen.to_string()))])))
}

fn read_file(path: &Path, origin: &str) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::Unreadable {
        path: path.display().to_string(),
        origin: origin.to_owned(),
        source,
    })
}

fn value(origin: &str, text: String) -> Value {
    Value::new(Some(&origin.to_owned()), text)
}

/// `server.listen` is `FOURSTEP_SERVER__LISTEN`.
fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_uppercase())
}

fn as_toml(kind: &ValueKind) -> String {
    match kind {
        ValueKind::String(text) => format!("{text:?}"),
        ValueKind::Array(items) => {
            format!("[{}]", items.iter().map(|item| as_toml(&item.kind)).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// The key that was probably meant: the same name in another section, else one a few letters away.
fn closest(key: &str, keys: &[String]) -> Option<String> {
    let name = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let same_name = keys.iter().find(|known| name(known) == name(key));
    let near = || keys.iter().map(|known| (distance(known, key), known)).min().filter(|(letters, _)| *letters <= 3);
    same_name.or_else(|| near().map(|(_, known)| known)).cloned()
}

/// Levenshtein's: how many letters to insert, delete or replace.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.chars().count()).collect();
    for (line, from) in left.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], line + 1);
        for (column, to) in right.chars().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}
