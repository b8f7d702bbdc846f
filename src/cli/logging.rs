//! The log: on standard error or in a file, for people where people look, as JSON lines where programs do.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result, anyhow};
use fourstep::{
    config,
    spans::{Export, ExportLayer},
};
use tracing::Level;
use tracing_subscriber::{
    EnvFilter, Registry,
    filter::{Filtered, Targets},
    fmt::{self, writer::BoxMakeWriter},
    layer::Layered,
    prelude::*,
    reload,
};

use super::terminal;

/// What a server or a worker tells who runs it.
const FOR_OPERATORS: &str = "warn,fourstep=info";
/// For somebody who typed a command and wants its result; only trouble is worth a line.
const FOR_CALLERS: &str = "warn";

/// The log of a command that somebody typed. `RUST_LOG` decides what is written, else only trouble is.
pub(crate) fn start() -> Result<()> {
    let log = tracing_subscriber::registry().with(filter(None, FOR_CALLERS)?);
    let lines = fmt::layer().with_writer(io::stderr).with_ansi(terminal::colors(&io::stderr())).with_target(false);
    log.with(lines).try_init().map_err(|error| anyhow!("could not start logging: {error}"))
}

/// The log of a server or a worker.
#[derive(Clone)]
pub(crate) struct Log {
    filter: reload::Handle<EnvFilter, Traced>,
    file: Option<LogFile>,
}

/// What writes the log: on top of what exports traces, where something does.
type Traced = Layered<Option<Filtered<ExportLayer<Registry>, Targets, Registry>>, Registry>;

impl Log {
    /// Starts it, and the export of traces if there is a collector. Whatever is written, all spans of the program are in
    /// them.
    pub(crate) fn start(config: &config::Log, traces: &config::Traces) -> Result<(Self, Option<Export>)> {
        let exporting = traces.endpoint.as_deref().map(Export::start).transpose().context("traces.endpoint")?;
        let (export, layer) = exporting.unzip();
        let file = config.file.as_deref().map(LogFile::open).transpose()?;
        let (filter, handle) = reload::Layer::new(filter(config.level.as_deref(), FOR_OPERATORS)?);
        let all = Targets::new().with_target("fourstep", Level::INFO);
        let log = tracing_subscriber::registry().with(layer.map(|layer: ExportLayer<_>| layer.with_filter(all)));
        let writer = match file.clone() {
            Some(file) => BoxMakeWriter::new(move || file.clone()),
            None => BoxMakeWriter::new(io::stderr),
        };
        let started = if file.is_none() && io::IsTerminal::is_terminal(&io::stderr()) {
            let lines = fmt::layer().with_ansi(terminal::colors(&io::stderr())).with_target(false);
            log.with(lines.with_writer(writer).with_filter(filter)).try_init()
        } else {
            let lines = fmt::layer().json().flatten_event(true).with_span_list(false);
            log.with(lines.with_writer(writer).with_filter(filter)).try_init()
        };
        started.map_err(|error| anyhow!("could not start logging: {error}"))?;
        Ok((Self { filter: handle, file }, export))
    }

    /// Opens the file anew, and writes from now on what this configuration wants. Where that cannot be, all stays as it was.
    pub(crate) fn renew(&self, config: &config::Log) -> Result<()> {
        if let Some(file) = &self.file {
            file.reopen()?;
        }
        Ok(self.filter.reload(filter(config.level.as_deref(), FOR_OPERATORS)?)?)
    }
}

/// What is written: as `RUST_LOG` says, else as is configured, else as usual.
fn filter(configured: Option<&str>, usual: &str) -> Result<EnvFilter> {
    let wanted = std::env::var("RUST_LOG").ok().filter(|directives| !directives.is_empty());
    let (name, directives) = match (&wanted, configured) {
        (Some(wanted), _) => ("RUST_LOG", wanted.as_str()),
        (None, Some(configured)) => ("log.level", configured),
        (None, None) => ("the log's level", usual),
    };
    EnvFilter::try_new(directives).with_context(|| format!("{name} cannot be read"))
}

/// A file to append to, which may be renamed meanwhile.
#[derive(Clone, Debug)]
struct LogFile {
    path: PathBuf,
    file: Arc<Mutex<File>>,
}

impl LogFile {
    fn open(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_owned(), file: Arc::new(Mutex::new(append_to(path)?)) })
    }

    fn reopen(&self) -> Result<()> {
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = append_to(&self.path)?;
        Ok(())
    }
}

fn append_to(path: &Path) -> Result<File> {
    // One that is made: requests are in it, whose URLs and accounts are nobody else's business.
    let opened = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    opened.with_context(|| format!("could not open the log file {}", path.display()))
}

impl io::Write for LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).flush()
    }
}
