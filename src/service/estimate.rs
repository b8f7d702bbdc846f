//! What a prediction will take, before it is made: guessed from what others took here.

use std::time::Duration;

use super::{CreateRequest, PredictionService, Result, internal, random_seed};
use crate::domain::{Input, NanoUsd, median, queue_wait};

/// What a request would take if it were made now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// Slug of the model that would run it.
    pub model: String,
    /// On the device.
    pub device_time: Duration,
    /// Until a worker begins with it.
    pub queue_time: Duration,
    /// Of the device time, at the price of now.
    pub cost: NanoUsd,
    /// What the device time is guessed from.
    pub basis: Basis,
}

/// What a guess is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// The median of the latest runs of as much work.
    Measured,
    /// The median of the latest runs, each scaled by how much more work this one is.
    Scaled,
    /// The catalog's figure for a picture of default size, scaled likewise: nothing has been measured yet.
    Catalog,
}

impl PredictionService {
    /// Checks a request as a create does, except for what its image holds, and guesses what it would take. Makes nothing.
    pub async fn estimate(&self, request: &CreateRequest) -> Result<Estimate> {
        let model = self.shared.catalog.answering(self.model_for(request)?);
        let seed = random_seed().map_err(internal)?;
        let read = |raw| Input::parse(raw, &model.limits, &request.defaults, seed).map(|(input, _)| input);
        let mut input = read(&request.input)?;
        // What it starts from is not looked at, only that it does.
        input.image = Input::is_given(&request.input, "image").then(String::new);
        let runs = self.shared.store.latest_runs(&model.slug).await?;
        let (device_time, basis) = match guess(&input, &runs) {
            Some(guess) => guess,
            None => {
                let usual = read(&serde_json::Value::Null)?;
                (scaled(model.average_run(), usual.work(), input.work()), Basis::Catalog)
            }
        };
        let (queued, workers) = self.shared.store.queue_depth(&model.slug).await?;
        let queue_time = queue_wait(queued, workers, self.typical_run(&model.slug).await?);
        let cost = model.price.cost_of(device_time);
        Ok(Estimate { model: model.slug.clone(), device_time, queue_time, cost, basis })
    }
}

fn guess(input: &Input, runs: &[(Input, Duration)]) -> Option<(Duration, Basis)> {
    let work = input.work();
    let alike = runs.iter().filter(|(run, _)| run.work() == work).map(|(_, time)| *time);
    let of_any = runs.iter().map(|(run, time)| scaled(*time, run.work(), work));
    median(alike).map(|time| (time, Basis::Measured)).or_else(|| Some((median(of_any)?, Basis::Scaled)))
}

/// A time for some work, for other work.
fn scaled(time: Duration, of: u64, to: u64) -> Duration {
    let microseconds = time.as_micros() * u128::from(to) / u128::from(of.max(1));
    Duration::from_micros(u64::try_from(microseconds).unwrap_or(u64::MAX))
}
