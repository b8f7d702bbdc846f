//! `fourstep config`: every setting in force and where it comes from, and the catalog of models, each as the file it would be.

use anyhow::Result;
use clap::{Args, Subcommand};
use fourstep::{app, config::Setting};

use super::{options::Place, terminal};

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print every option with the value in force and its origin; secrets are masked
    Show(ShowArgs),
    /// Print the catalog of models in force: names, prices, limits; for a file to change and to name in models.catalog
    Catalog(CatalogArgs),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    place: Place,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct CatalogArgs {
    #[command(flatten)]
    place: Place,
}

pub(crate) fn run(command: ConfigCommand) -> Result<()> {
    match command {
        ConfigCommand::Show(args) => show(&args),
        ConfigCommand::Catalog(args) => {
            let config = args.place.load(Vec::new())?;
            // Shown only if it would be accepted.
            app::catalog(&config)?;
            terminal::print(&app::catalog_text(&config)?)
        }
    }
}

fn show(args: &ShowArgs) -> Result<()> {
    let layers = args.place.layers(Vec::new())?;
    // Shown only if it would be accepted.
    layers.resolve()?;
    terminal::print(&as_file(&layers.settings()))
}

fn as_file(settings: &[Setting]) -> String {
    let mut text = String::new();
    let mut section = "";
    for setting in settings {
        let (of, name) = setting.key.split_once('.').unwrap_or(("", &setting.key));
        if of != section {
            let gap = if section.is_empty() { "" } else { "\n" };
            text += &format!("{gap}[{of}]\n");
            section = of;
        }
        let line = format!("{name} = {}", setting.value);
        match &setting.origin {
            Some(origin) => text += &format!("{line:<48} # {origin}\n"),
            None => text += &format!("{line}\n"),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_shown_as_a_file_with_their_origins() {
        let setting = |key: &str, value: &str, origin: Option<&str>| Setting {
            key: key.to_owned(),
            value: value.to_owned(),
            origin: origin.map(str::to_owned),
        };
        let settings = [
            setting("server.listen", "\"127.0.0.1:1\"", Some("--listen")),
            setting("server.max_connections", "5", None),
            setting("queue.lease_seconds", "15", None),
        ];
        let expected = "[server]\nlisten = \"127.0.0.1:1\"                           # --listen\nmax_connections = 5\n\n[queue]\nlease_seconds = 15\n";
        assert_eq!(as_file(&settings), expected);
    }
}
