//! fourstep: a prediction API server for SDXL-Lightning, the text-to-image model that needs four steps.
//!
//! A client posts a prompt and gets an id; workers draw; the client waits for the picture. One Postgres is the queue,
//! the ledger and the truth, so any number of servers and workers may share it.
//!
//! # The path of one request
//!
//! Each step goes down the page and opens one new file. Three are met twice, as pairs: `http` and `wire` on the way in
//! and out, `service` to create and to wait, `store` to claim and to finish.
//!
//! ```text
//!  1  http/native.rs         create: extracts caller, headers and body
//!  2  wire/native            JSON into a request, and nothing else knows the words of this face
//!  3  service                create: finds the model, checks the input and its image, fixes seed and price
//!  4  store/create.rs        inserts the row and holds what it may cost             ── queued
//!  5  service                wait: subscribes to changes, then reads, until the row is terminal
//!  6  worker/run.rs          store/queue.rs claims the row, with a lease            ── processing
//!  7  worker/device          the thread that owns the device runs the predictor
//!  8  pipeline               tokenizer → text encoders → noise → (scheduler ⇄ unet) × steps → vae → image
//!  9  artifacts              the image becomes a file, stored before anybody is told
//! 10  store/finish.rs        finish: output, device time and cost in one transaction ── succeeded
//! 11  service                wait wakes and reads the row again
//! 12  wire/native            the row into JSON, and http sends it
//! ```
//!
//! Where its owner wants to be told by a webhook, steps 6 and 10 also post that to an outbox, in the same statement,
//! and [`webhook`] delivers it from there, in any server.
//!
//! Steps 1–5 and 11–12 happen in a server, 6–10 in a worker. The two meet only in the row: [`http`] and [`worker`]
//! never call each other, which is why a worker may as well run on another machine.
//!
//! # What always holds
//!
//! - The row is the truth. A notification only shortens the wait for it; without any, a poll finds the change.
//! - Subscribe, then read. The other way round a change falls in between.
//! - No transaction is open while a device works, and no connection is held by a client that waits.
//! - A worker finishes only the attempt it claimed; whatever comes later is dropped. Terminal states never change.
//! - Nobody is told of a create or an end before it is on the disk, and nobody's row is locked while one waits for the
//!   disk (`store/durable.rs`).
//! - Money is whole nano-dollars and device time whole microseconds, never a float.
//! - Whatever ends a prediction goes through `store/ended.rs`: it charges, gives back what was held, and adds up usage.
//! - A bad request is an HTTP error that names the field; a failed prediction is data, with status 200.
//!
//! # Who may know whom
//!
//! ```text
//! http               → service, wire, domain
//! service            → store, artifacts, fetch, picture, domain
//! worker             → store, artifacts, picture, domain
//! worker::predictor  → pipeline, picture, domain
//! webhook            → store, wire, fetch, domain
//! store, wire, artifacts, hub → domain
//! ```
//!
//! [`domain`] and [`pipeline`] import nothing of ours: the first is pure values, the second a library that knows
//! nothing of servers. [`config`], [`demo`], [`fetch`] and [`postgres`] are leaves as well, and so is [`picture`],
//! which reads and writes image files, but for the version that it writes into them. [`metrics`], which is told what
//! happened, and [`spans`], which knows where a trace goes on, are leaves that any room with work to do may use.
//!
//! [`app`] puts everything together, and the command line (`src/cli`, part of the program and not of the library) calls
//! it. `tests/it/architecture.rs` has all of this as a table, and holds it.

pub mod app;
pub mod artifacts;
pub mod config;
pub mod demo;
pub mod domain;
pub mod fetch;
pub mod http;
pub mod hub;
pub mod metrics;
pub mod picture;
pub mod pipeline;
pub mod postgres;
pub mod service;
pub mod spans;
pub mod store;
mod version;
pub mod webhook;
pub mod wire;
pub mod worker;

pub use version::version;
