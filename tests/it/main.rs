//! Tests of the whole program on a real Postgres and real sockets. `DATABASE_URL` names a server where the tests may
//! create databases; each test gets its own.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod admin;
mod admission;
mod architecture;
mod auth;
mod budgets;
mod checker;
mod command_line;
mod delivering;
mod demo;
mod durable;
mod eachlabs;
mod ends;
mod estimate;
mod events;
mod faces;
mod fairness;
mod faults;
mod files;
mod histories;
mod idempotency;
mod image_to_image;
mod kill_loops;
mod ledger;
mod logs;
mod long_poll;
mod malformed;
mod metrics;
mod native;
mod openai;
mod openapi;
mod playground;
mod probes;
mod process;
mod queue;
mod receiver;
mod refusals;
mod replicate;
mod server;
mod shared_files;
mod sick_device;
mod starts;
mod support;
mod sweeping;
mod tidy;
#[cfg(feature = "otlp")]
mod traces;
mod uploads;
mod usage;
mod webhook_log;
mod webhook_neighbours;
mod webhook_retries;
mod webhook_secrets;
mod webhooks;
mod worker;
