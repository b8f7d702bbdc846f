//! What commands share about the terminal and the shell they run in.

use std::{
    io::{self, IsTerminal, Write},
    path::Path,
};

use anyhow::Result;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Writes to standard output. A reader that has seen enough, as `head`, is no failure.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

/// Whether a person reads standard output.
pub(crate) fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Whether to color what is written to `stream`; <https://no-color.org>.
pub(crate) fn colors(stream: &impl IsTerminal) -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !refused
}

/// A path as a shell reads it back.
pub(crate) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |character: char| character.is_ascii_alphanumeric() || "/._-+@%,:=".contains(character);
    if !text.is_empty() && text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// Columns side by side, each as wide as its widest cell.
pub(crate) fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; COLUMNS] = std::array::from_fn(width);
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// Every client that waits holds an open file, and the usual limit of 1024 is meant for programs that use `select`.
pub(crate) fn raise_open_file_limit() {
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = raised {
        tracing::warn!(%error, "Could not raise the limit of open files; fewer clients can wait at once");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_quoted_only_where_the_shell_needs_it() {
        assert_eq!(quoted(Path::new("/srv/fourstep/data")), "/srv/fourstep/data");
        assert_eq!(quoted(Path::new("/my data")), "'/my data'");
        assert_eq!(quoted(Path::new("/it's")), r"'/it'\''s'");
    }

    #[test]
    fn columns_line_up_and_lines_do_not_end_in_spaces() {
        let rows = [["KEY", "NAME"], ["fs_12345678", "x"]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&rows), "KEY          NAME\nfs_12345678  x\n");
    }
}
