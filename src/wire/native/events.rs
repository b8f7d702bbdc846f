//! The events of a prediction's stream: what they are called, what they say, and how far a client has heard.
//!
//! Each says how things are and not what changed, so a client that missed some has missed nothing. An event's id names
//! the state it tells of; a client that comes back with the last one it saw hears of what is different now.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    super::exact::{Moment, Seconds},
    Prediction,
};
use crate::domain::{self, Progress, QueuePlace, Status};

/// The last thing a client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing yet, or something no server has said.
    Nothing,
    /// Its position in the queue.
    Queued(u64),
    /// That an attempt has begun.
    Started(i32),
    /// How many steps of an attempt are done, and how many images are finished.
    Step(i32, u32, u32),
    /// How it ended.
    Finished,
}

/// An event that is news to a client.
#[derive(Debug)]
pub enum News {
    /// It waits in the queue.
    Queued {
        /// The next to be claimed is at position 1.
        position: u64,
        /// When it should be done.
        place: QueuePlace,
    },
    /// A worker has it.
    Started {
        /// Which attempt this is.
        attempt: i32,
    },
    /// The model has made a step.
    Step(Progress),
    /// It is terminal.
    Finished,
}

impl Heard {
    /// What a client that heard this has not heard yet.
    pub fn news(
        self,
        prediction: &domain::Prediction,
        place: Option<QueuePlace>,
        progress: Option<Progress>,
    ) -> Option<News> {
        let attempt = prediction.attempt;
        match prediction.status {
            Status::Queued => {
                let place = place?;
                let position = place.ahead + 1;
                (self != Self::Queued(position)).then_some(News::Queued { position, place })
            }
            Status::Processing => match (progress.filter(|progress| progress.attempt == attempt), self) {
                (Some(progress), Self::Step(told, done, finished))
                    if told == attempt && (finished, done) >= (progress.finished_images, progress.done) =>
                {
                    None
                }
                (Some(progress), _) => Some(News::Step(progress)),
                (None, Self::Started(told) | Self::Step(told, ..)) if told == attempt => None,
                (None, _) => Some(News::Started { attempt }),
            },
            Status::Succeeded | Status::Failed | Status::Canceled => (self != Self::Finished).then_some(News::Finished),
        }
    }
}

impl News {
    /// The event's name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Queued { .. } => "queued",
            Self::Started { .. } => "started",
            Self::Step(_) => "step",
            Self::Finished => "finished",
        }
    }

    /// What its client has heard when it has heard this.
    pub const fn heard(&self) -> Heard {
        match self {
            Self::Queued { position, .. } => Heard::Queued(*position),
            Self::Started { attempt } => Heard::Started(*attempt),
            Self::Step(progress) => Heard::Step(progress.attempt, progress.done, progress.finished_images),
            Self::Finished => Heard::Finished,
        }
    }

    /// The event's data, JSON in one line.
    pub fn data(&self, prediction: &domain::Prediction, document: &Prediction<'_>) -> serde_json::Result<String> {
        match self {
            Self::Queued { position, place } => {
                serde_json::to_string(&Queued { position: *position, eta_seconds: Seconds(place.eta) })
            }
            Self::Started { attempt } => {
                serde_json::to_string(&Started { attempt: *attempt, started_at: prediction.started_at.map(Moment) })
            }
            Self::Step(progress) => serde_json::to_string(&Step {
                step: progress.done,
                total: progress.total,
                finished_images: progress.finished_images,
                elapsed_seconds: Seconds(progress.elapsed),
                preview: progress
                    .preview
                    .as_ref()
                    .map(|jpeg| format!("data:image/jpeg;base64,{}", STANDARD.encode(jpeg))),
            }),
            Self::Finished => serde_json::to_string(document),
        }
    }
}

/// An event of a stream, as its client reads it off the wire.
#[derive(ToSchema)]
#[schema(as = server::Event)]
#[expect(dead_code, reason = "it is written line by line")]
pub struct ServerSentEvent {
    /// What it is called.
    event: Option<String>,
    /// To be sent as `Last-Event-ID` by who comes back.
    id: Option<String>,
    /// JSON in one line.
    data: Option<String>,
    /// How soon to come back, milliseconds.
    retry: Option<u32>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = native::Queued)]
struct Queued {
    /// 1 is the next.
    position: u64,
    /// When it should be done.
    eta_seconds: Seconds,
}

#[derive(Serialize, ToSchema)]
#[schema(as = native::Started)]
struct Started {
    /// From 1.
    attempt: i32,
    /// When it was first taken by a worker.
    started_at: Option<Moment>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = native::Step)]
struct Step {
    /// Calls of the UNet that are done, over all pictures.
    step: u32,
    /// Calls of the UNet in all.
    total: u32,
    /// Pictures that are done.
    finished_images: u32,
    /// Since it was started.
    elapsed_seconds: Seconds,
    /// A JPEG, as a data URI: of the picture being drawn, an eighth its size or smaller, or of one that was just finished. The
    /// latter is not shown of a prediction made on Eachlabs' face, whose cancel is free.
    preview: Option<String>,
}

/// An event's id.
impl fmt::Display for Heard {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => Ok(()),
            Self::Queued(position) => write!(formatter, "queued-{position}"),
            Self::Started(attempt) => write!(formatter, "started-{attempt}"),
            Self::Step(attempt, done, finished) => write!(formatter, "step-{attempt}-{done}-{finished}"),
            Self::Finished => formatter.write_str("finished"),
        }
    }
}

/// `Last-Event-ID`, of which nothing can be wrong: what is no id of ours is as good as none.
impl FromStr for Heard {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut words = text.trim().split('-');
        let kind = words.next();
        let numbers: Option<Vec<u64>> = words.map(|word| word.parse().ok()).collect();
        let heard = match (kind, numbers.as_deref()) {
            (Some("queued"), Some(&[position])) => Some(Self::Queued(position)),
            (Some("started"), Some(&[attempt])) => i32::try_from(attempt).map(Self::Started).ok(),
            (Some("step"), Some(&[attempt, done, finished])) => step(attempt, done, finished),
            (Some("finished"), Some([])) => Some(Self::Finished),
            _ => None,
        };
        Ok(heard.unwrap_or(Self::Nothing))
    }
}

fn step(attempt: u64, done: u64, finished: u64) -> Option<Heard> {
    Some(Heard::Step(attempt.try_into().ok()?, done.try_into().ok()?, finished.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_back_and_anything_else_is_none() {
        for heard in [Heard::Queued(3), Heard::Started(1), Heard::Step(2, 4, 1), Heard::Finished] {
            assert_eq!(heard.to_string().parse(), Ok(heard));
        }
        for foreign in ["", "7", "step", "step-1", "step-1-4", "queued-x", "finished-1", "started--1"] {
            assert_eq!(foreign.parse(), Ok(Heard::Nothing), "{foreign}");
        }
    }
}
