//! What the process counts and measures, for Prometheus. Every metric is named, described and recorded here and nowhere
//! else; the rest of the program calls a function named for what happened.
//!
//! Labels are words of ours (a status, a stage, a model, a route of the URL table, the number of one of so many keys),
//! never a prediction's id, a secret or a text of a caller's, so that the number of series stays small. Without
//! [`install`] everything here does nothing.

mod cost;
mod device;
mod disk;
mod exposition;
mod keys;

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

pub use device::Device;
pub use disk::{Disk, look_at_disks, watch_disk};
pub use exposition::{Facts, Pool, QueueFacts, install, render, tidy_up};

const HTTP_DURATION: &str = "http_server_request_duration_seconds";
const QUEUE_WAIT: &str = "fourstep_queue_wait_seconds";
const PREDICT: &str = "fourstep_predict_seconds";
const PREDICTIONS: &str = "fourstep_predictions_total";
const COST: &str = "fourstep_cost_usd_total";
const LEASES_EXPIRED: &str = "fourstep_leases_expired_total";
const RESULTS_FENCED: &str = "fourstep_results_fenced_total";
const WEBHOOKS: &str = "fourstep_webhook_deliveries_total";
const NOTIFICATIONS_LOST: &str = "fourstep_notifications_lost_total";
const HELD: &str = "fourstep_held_requests";

// Facts: read when they are asked for, and not there when they cannot be read.
const BUILD_INFO: &str = "fourstep_build_info";
const DATABASE_UP: &str = "fourstep_database_up";
const QUEUE_DEPTH: &str = "fourstep_queue_depth";
const QUEUE_OLDEST: &str = "fourstep_queue_oldest_seconds";
const DEAD_ROWS: &str = "fourstep_dead_rows";
const OLDEST_SNAPSHOT: &str = "fourstep_oldest_snapshot_seconds";
const WORKERS: &str = "fourstep_workers";
const WORKER_UP: &str = "fourstep_worker_up";
const DEVICE_BUSY: &str = "fourstep_device_busy_microseconds_total";
const DEVICE_RATIO: &str = "fourstep_device_busy_ratio";
const DEVICE_MEMORY: &str = "fourstep_device_memory_bytes";
const MEMORY: &str = "process_resident_memory_bytes";
const DISK_FREE: &str = "fourstep_disk_free_bytes";
const DISK_SIZE: &str = "fourstep_disk_size_bytes";
const POOL_CONNECTIONS: &str = "fourstep_pool_connections";
const POOL_MAX: &str = "fourstep_pool_max_connections";
const POOL_WAITERS: &str = "fourstep_pool_waiters";
const WATCHED: &str = "fourstep_watched_predictions";

/// Upper bounds of the buckets of all times, seconds: from a store operation to a large picture on a CPU.
const SECONDS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// A part of a prediction's run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The text encoders, and the VAE's encoder where there is an image to start from.
    Encode,
    /// One UNet call.
    UnetStep,
    /// The VAE's decoder, to pixels.
    Vae,
    /// Pixels to the bytes of a file.
    Png,
    /// The file to the artifact store.
    Store,
}

impl Stage {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Encode => "encode",
            Self::UnetStep => "unet_step",
            Self::Vae => "vae",
            Self::Png => "png",
            Self::Store => "store",
        }
    }
}

/// A request was answered, or its client hung up before. `route` is from the URL table.
pub fn request_ended(method: &str, route: Option<&str>, status: Option<u16>, took: Duration) {
    // Anybody may invent methods.
    let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    let method = known.into_iter().find(|known| *known == method).unwrap_or("_OTHER");
    histogram!(
        HTTP_DURATION,
        "http_request_method" => method,
        "http_route" => route.unwrap_or_default().to_owned(),
        "http_response_status_code" => status.map_or_else(|| "hung_up".to_owned(), |status| status.to_string()),
    )
    .record(took);
}

/// A worker took a prediction for the first time, after it had waited this long.
pub fn prediction_started(model: &str, waited: Duration) {
    histogram!(QUEUE_WAIT, "model" => model.to_owned()).record(waited);
}

/// A prediction became terminal. The status and the mode are the domain's words.
pub fn prediction_ended(status: &'static str, mode: &'static str) {
    counter!(PREDICTIONS, "status" => status, "mode" => mode).increment(1);
}

/// A prediction made with the key of this id was charged for.
pub fn charged(model: &str, key_id: i64, nanodollars: i64) {
    if exposition::is_installed() {
        cost::add(keys::label(key_id), model, nanodollars.unsigned_abs());
    }
}

/// A part of a run is done.
pub fn stage_ended(stage: Stage, took: Duration) {
    histogram!(PREDICT, "stage" => stage.as_str()).record(took);
}

/// So many predictions were taken from workers that were lost.
pub fn leases_expired(count: u64) {
    counter!(LEASES_EXPIRED).increment(count);
}

/// A worker came with a result for a prediction that had been taken from it; the result was dropped.
pub fn result_fenced() {
    counter!(RESULTS_FENCED).increment(1);
}

/// A webhook was told. `result` is one of a few words: `delivered`, `tried_again`, `given_up`, `gone`.
pub fn webhook_tried(result: &'static str) {
    counter!(WEBHOOKS, "result" => result).increment(1);
}

/// News of changed rows was not sent or may not have been heard; whoever waited had to poll for it.
pub fn notification_lost() {
    counter!(NOTIFICATIONS_LOST).increment(1);
}

/// A request is held from now on.
pub fn request_held() {
    gauge!(HELD).increment(1.0);
}

/// And from now on no longer.
pub fn request_let_go() {
    gauge!(HELD).decrement(1.0);
}

/// Gives every recorded metric its HELP, and those without labels a beginning.
fn describe() {
    describe_histogram!(HTTP_DURATION, Unit::Seconds, "Time to answer an HTTP request, by route, method and status.");
    describe_histogram!(QUEUE_WAIT, Unit::Seconds, "Time a prediction waited until a worker first took it.");
    describe_histogram!(
        PREDICT,
        Unit::Seconds,
        "Time of a stage of a run: encode, unet_step, vae, png, store. The last two run beside the device."
    );
    describe_counter!(
        PREDICTIONS,
        "Predictions that this process brought to an end, by status and by mode: text_to_image, image_to_image."
    );
    describe_counter!(LEASES_EXPIRED, "Predictions that this process took from lost workers.");
    describe_counter!(RESULTS_FENCED, "Results that were dropped because their prediction had been taken away.");
    describe_counter!(WEBHOOKS, "Tries to deliver a webhook, by result.");
    describe_counter!(NOTIFICATIONS_LOST, "News of changed rows that was lost, so that those who waited had to poll.");
    describe_gauge!(HELD, "Requests of this process that are held: they wait for a result, or follow a prediction.");
    gauge!(HELD).set(0.0);
    for name in [LEASES_EXPIRED, RESULTS_FENCED, NOTIFICATIONS_LOST] {
        counter!(name).absolute(0);
    }
    for result in ["delivered", "tried_again", "given_up", "gone"] {
        counter!(WEBHOOKS, "result" => result).absolute(0);
    }
    for status in ["succeeded", "failed", "canceled"] {
        for mode in ["text_to_image", "image_to_image"] {
            counter!(PREDICTIONS, "status" => status, "mode" => mode).absolute(0);
        }
    }
}

/// Gives the facts their HELP.
fn describe_facts() {
    describe_gauge!(BUILD_INFO, "Always 1; the label says which version runs.");
    describe_gauge!(DATABASE_UP, "1 while the database answers. While it does not, what only it knows is missing.");
    describe_gauge!(QUEUE_DEPTH, "Predictions that wait for a worker, by model, over all processes.");
    describe_gauge!(QUEUE_OLDEST, Unit::Seconds, "How long the one that waits longest has waited, by model.");
    describe_gauge!(DEAD_ROWS, "Rows of the table of predictions that wait for vacuum, as the database estimates it.");
    describe_gauge!(
        OLDEST_SNAPSHOT,
        Unit::Seconds,
        "For how long the oldest open transaction, of whatever program, has kept vacuum from its work."
    );
    describe_gauge!(WORKERS, "Workers by phase, over all processes.");
    describe_gauge!(WORKER_UP, "1 while this process's worker of a device takes predictions.");
    describe_counter!(DEVICE_BUSY, "Microseconds that a device of this process has worked on predictions.");
    describe_gauge!(DEVICE_RATIO, "Share of about the last 15 seconds that a device of this process was working.");
    describe_gauge!(
        DEVICE_MEMORY,
        Unit::Bytes,
        "Memory in use on a device: on a GPU by whomever, after the latest run; on a CPU that of this process."
    );
    describe_gauge!(MEMORY, Unit::Bytes, "Resident memory of the process; on a CPU the model is in it.");
    describe_gauge!(DISK_FREE, Unit::Bytes, "Room left on a disk of this process's: outputs, or the private database.");
    describe_gauge!(DISK_SIZE, Unit::Bytes, "All the room of that disk.");
    describe_gauge!(POOL_CONNECTIONS, "Connections of this process to the database, by state: idle, used.");
    describe_gauge!(POOL_MAX, "Most connections this process opens for requests.");
    describe_gauge!(POOL_WAITERS, "Those of this process who wait for one of these connections at this moment.");
    describe_gauge!(WATCHED, "Predictions that somebody waits for or follows in this process.");
}

/// Records what can be said at this moment.
fn record_facts(facts: &Facts) {
    describe_facts();
    gauge!(BUILD_INFO, "version" => facts.version).set(1.0);
    gauge!(DATABASE_UP).set(f64::from(u8::from(facts.queue.is_some())));
    if let Some(queue) = &facts.queue {
        for (model, depth, oldest) in &queue.waiting {
            gauge!(QUEUE_DEPTH, "model" => model.clone()).set(*depth as f64);
            gauge!(QUEUE_OLDEST, "model" => model.clone()).set(oldest.as_secs_f64());
        }
        gauge!(DEAD_ROWS).set(queue.dead_rows as f64);
        gauge!(OLDEST_SNAPSHOT).set(queue.oldest_snapshot.as_secs_f64());
        for (phase, count) in &queue.workers {
            gauge!(WORKERS, "phase" => phase.clone()).set(*count as f64);
        }
    }
    let resident = exposition::resident_memory();
    for device in device::all() {
        let label = || device.name().to_owned();
        gauge!(WORKER_UP, "device" => label()).set(f64::from(u8::from(device.is_up())));
        counter!(DEVICE_BUSY, "device" => label()).absolute(device.busy().as_micros() as u64);
        gauge!(DEVICE_RATIO, "device" => label()).set(device.busy_ratio());
        if let Some(bytes) = device.memory().or(resident) {
            gauge!(DEVICE_MEMORY, "device" => label()).set(bytes as f64);
        }
    }
    if let Some(bytes) = resident {
        gauge!(MEMORY).set(bytes as f64);
    }
    for Disk { of, free, size } in &facts.disks {
        gauge!(DISK_FREE, "disk" => *of).set(*free as f64);
        gauge!(DISK_SIZE, "disk" => *of).set(*size as f64);
    }
    let Pool { idle, used, most, waiters } = facts.pool;
    gauge!(POOL_CONNECTIONS, "state" => "idle").set(idle);
    gauge!(POOL_CONNECTIONS, "state" => "used").set(used);
    gauge!(POOL_MAX).set(most);
    gauge!(POOL_WAITERS).set(waiters as f64);
    gauge!(WATCHED).set(facts.watched as f64);
}
