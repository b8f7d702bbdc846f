//! What a prediction will take, before it is made.

use serde::Serialize;
use utoipa::ToSchema;

use super::super::exact::{Dollars, Seconds};
use crate::domain::{Model, NanoUsd};

/// The answer to a request that asks what it would take.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = native::Estimate)]
pub struct Estimate {
    /// The one that would draw.
    model: String,
    /// On the device.
    predict_time: Seconds,
    /// Until a worker begins with it.
    queue_time: Seconds,
    /// Both together.
    total_time: Seconds,
    /// Of the time on the device, at the price of now.
    cost: Dollars,
    /// `measured`: the median of the latest runs of as much work; `scaled`: the latest runs, scaled by work; `catalog`: a figure, for nothing has been measured yet.
    based_on: &'static str,
}

impl Estimate {
    /// The document of a guess: how long on the device, how long until then, at what cost, and what it is guessed from.
    pub fn new(
        model: &Model,
        (predict_time, queue_time): (std::time::Duration, std::time::Duration),
        cost: NanoUsd,
        based_on: &'static str,
    ) -> Self {
        Self {
            model: model.full_name(),
            predict_time: Seconds(predict_time),
            queue_time: Seconds(queue_time),
            total_time: Seconds(queue_time.saturating_add(predict_time)),
            cost: Dollars(cost),
            based_on,
        }
    }
}
