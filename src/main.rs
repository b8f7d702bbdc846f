//! The program `fourstep`: a command line around the library.

mod allocator;
mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
