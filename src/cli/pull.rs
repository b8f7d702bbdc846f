//! `fourstep pull`: brings a model's weights, and shows how that goes.
//!
//! The plan and the folder are results, on standard output; progress goes to standard error, as bars on a terminal and
//! as a line now and then elsewhere. What is fetched and verified, and how, is `fourstep::hub`'s.

use std::{
    io::{self, IsTerminal, Write},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Args;
use fourstep::{
    app,
    domain::{Catalog, Model},
    hub::{ByteSize, Environment, Event, Hub, Plan, PlannedFile, Transfer},
};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::{
    block_on, logging,
    options::{self, Place},
    terminal,
};

/// How often a line is written where there are no bars.
const LINE_EVERY: Duration = Duration::from_secs(10);

const BAR: &str = "{msg:44!} {bar:24} {decimal_bytes:>10} of {decimal_total_bytes:<10} {decimal_bytes_per_sec:>11}  \
                   {eta:>4} left";

#[derive(Clone, Debug, Args)]
pub(crate) struct PullArgs {
    /// Name of the model, as in requests [default: the first of the catalog]
    #[arg(value_name = "MODEL")]
    model: Option<String>,
    #[command(flatten)]
    place: Place,
    /// Leave out what the model draws without: the safety checker
    #[arg(long)]
    required_only: bool,
    /// List the files, their sizes and what is already here, and download nothing
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(args: PullArgs) -> anyhow::Result<()> {
    let catalog = app::catalog(&args.place.load(Vec::new())?)?;
    logging::start()?;
    block_on(pull(args, &catalog, options::hub()?))
}

async fn pull(args: PullArgs, catalog: &Catalog, environment: Environment) -> anyhow::Result<()> {
    let model = match &args.model {
        Some(name) => catalog.find(name).with_context(|| unknown(name, catalog))?,
        None => catalog.default_model(),
    };
    let model = &if args.required_only { model.clone().without_optional_files() } else { model.clone() };
    let hub = Hub::new(environment, Transfer::default())?;
    let plan = hub.plan(model).await?;
    if args.dry_run {
        return terminal::print(&listing(model, &plan));
    }
    let progress: Box<dyn Progress> =
        if io::stderr().is_terminal() { Box::new(Bars::new(&plan)) } else { Box::new(Lines::new(&plan)) };
    let pulled = hub.pull(model, &plan, &|event| progress.show(&event)).await;
    progress.end();
    terminal::print(&format!("{}\n", pulled?.display()))
}

fn unknown(name: &str, catalog: &Catalog) -> String {
    let known: Vec<&str> = catalog.models().iter().map(|model| model.slug.as_str()).collect();
    format!("the catalog has no model {name:?}; it has {}", known.join(", "))
}

/// What a pull would do, one file a line.
fn listing(model: &Model, plan: &Plan) -> String {
    let name = |file: &PlannedFile| format!("{}/{}", file.file.repository, file.file.path);
    let width = plan.files.iter().map(|file| name(file).len()).max().unwrap_or(0);
    let mut text = format!("{}\n", model.full_name());
    for file in &plan.files {
        let size = file.size.map_or("size unknown".to_owned(), |size| ByteSize(size).to_string());
        let state = match file.present {
            _ if file.is_complete() => "here".to_owned(),
            0 => "to download".to_owned(),
            present => format!("{} of it here", ByteSize(present)),
        };
        text += &format!("  {:<width$}  {size:>12}  {state}\n", name(file));
    }
    let unknown = if plan.files.iter().any(|file| file.size.is_none()) { ", and what is of unknown size" } else { "" };
    text += &format!("{} in all, {} to download{unknown}\n", ByteSize(plan.size()), ByteSize(plan.missing()));
    text + &format!("The model's folder, for --weights: {}\n", plan.folder.display())
}

/// How a pull is shown.
trait Progress: Sync {
    fn show(&self, event: &Event);
    /// After the last event.
    fn end(&self);
}

/// One bar for each file under way, and one for all of them.
struct Bars {
    screen: MultiProgress,
    total: ProgressBar,
    files: Vec<ProgressBar>,
    names: Vec<String>,
}

impl Bars {
    fn new(plan: &Plan) -> Self {
        let style = ProgressStyle::with_template(BAR).expect("a valid template").progress_chars("━━─");
        let screen = MultiProgress::new();
        let total = screen.add(ProgressBar::new(plan.size()).with_style(style.clone()).with_message("all files"));
        let bar = |file: &PlannedFile| ProgressBar::new(file.size.unwrap_or(0)).with_style(style.clone());
        Self { total, files: plan.files.iter().map(bar).collect(), names: names(plan), screen }
    }
}

impl Progress for Bars {
    fn show(&self, event: &Event) {
        match event {
            Event::Started { file, present, size } => {
                let bar = self.screen.insert_before(&self.total, self.files[*file].clone());
                bar.set_message(self.names[*file].clone());
                bar.set_length(*size);
                bar.set_position(*present);
                bar.reset_eta();
                self.total.inc(*present);
                self.total.reset_eta();
            }
            Event::Arrived { file, bytes } => {
                self.files[*file].inc(*bytes);
                self.total.inc(*bytes);
            }
            Event::Lost { file, bytes } => {
                self.files[*file].dec(*bytes);
                self.total.dec(*bytes);
            }
            Event::Finished { file } => {
                let bar = &self.files[*file];
                let length = bar.length().unwrap_or(0);
                self.total.inc(length.saturating_sub(bar.position()));
                bar.set_position(length);
                bar.finish_and_clear();
            }
            Event::Damaged { file } => {
                let bar = &self.files[*file];
                self.total.dec(bar.position());
                bar.set_position(0);
                self.note(*file, "damaged, fetched again");
            }
            Event::Waiting { file } => self.note(*file, "another program downloads it; waiting for that"),
            Event::Broken { file, reason, wait } => {
                self.note(*file, &format!("{reason}; going on in {} s", wait.as_secs_f32().ceil()));
            }
            Event::Verifying { file } => self.files[*file].set_message(format!("verifying {}", self.names[*file])),
        }
    }

    fn end(&self) {
        self.total.finish_and_clear();
        // Nothing is lost with a bar that cannot be erased.
        let _ = self.screen.clear();
    }
}

impl Bars {
    fn note(&self, file: usize, text: &str) {
        let _ = self.screen.println(format!("{}: {text}", self.names[file]));
    }
}

/// A line for each file and one now and then, for logs.
struct Lines {
    names: Vec<String>,
    state: Mutex<Arrivals>,
}

struct Arrivals {
    arrived: u64,
    wanted: u64,
    began: Instant,
    told: Instant,
}

impl Lines {
    fn new(plan: &Plan) -> Self {
        let names = names(plan);
        let now = Instant::now();
        if plan.missing() > 0 {
            write_line(&format!("{} files, {} to download", names.len(), ByteSize(plan.missing())));
        }
        Self { names, state: Mutex::new(Arrivals { arrived: 0, wanted: plan.missing(), began: now, told: now }) }
    }

    fn count(&self, change: impl FnOnce(&mut Arrivals)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        if state.told.elapsed() >= LINE_EVERY {
            state.told = Instant::now();
            write_line(&state.to_string());
        }
    }
}

impl std::fmt::Display for Arrivals {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.began.elapsed().as_secs().max(1);
        let (arrived, wanted, speed) =
            (ByteSize(self.arrived), ByteSize(self.wanted), ByteSize(self.arrived / seconds));
        write!(formatter, "{arrived} of {wanted} downloaded, {speed}/s")
    }
}

impl Progress for Lines {
    fn show(&self, event: &Event) {
        let name = |file: &usize| &self.names[*file];
        match event {
            Event::Started { .. } | Event::Verifying { .. } => {}
            Event::Arrived { bytes, .. } => self.count(|state| state.arrived += bytes),
            Event::Lost { bytes, .. } => self.count(|state| state.arrived = state.arrived.saturating_sub(*bytes)),
            Event::Finished { file } => write_line(&format!("{}: here, and verified", name(file))),
            Event::Damaged { file } => write_line(&format!("{}: damaged, fetched again", name(file))),
            Event::Waiting { file } => {
                write_line(&format!("{}: another program downloads it; waiting for that", name(file)));
            }
            Event::Broken { file, reason, wait } => {
                write_line(&format!("{}: {reason}; going on in {} s", name(file), wait.as_secs_f32().ceil()));
            }
        }
    }

    fn end(&self) {}
}

/// Each file by its place in the model's folder, which is what people know it by.
fn names(plan: &Plan) -> Vec<String> {
    plan.files.iter().map(|file| file.file.destination().to_owned()).collect()
}

/// To standard error; progress that nobody can read stops nothing.
fn write_line(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
