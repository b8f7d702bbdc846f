//! Following a prediction: every sight of it, from the queue to its end.

use std::time::Duration;

use super::{Held, PredictionService, Result};
use crate::{
    domain::{Prediction, PredictionId, Progress, QueuePlace, Status},
    store::Subscription,
};

/// How often somebody who follows a running prediction looks at it when nothing is heard.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// How often, at least and at most, somebody who follows a queued prediction is told its place.
const PLACE_AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Somebody who follows a prediction. Holds no database connection between two looks.
#[derive(Debug)]
pub struct Follow {
    pub(super) service: PredictionService,
    pub(super) held: Held,
    pub(super) id: PredictionId,
    pub(super) subscription: Subscription,
    /// Before the next look, should nothing be heard.
    pub(super) pause: Duration,
}

/// All that can be seen of a prediction.
#[derive(Clone, Debug)]
pub struct Sight {
    /// As it is.
    pub prediction: Prediction,
    /// Where it stands, while it is queued.
    pub place: Option<QueuePlace>,
    /// How far it is, while it is processed.
    pub progress: Option<Progress>,
}

impl Follow {
    /// Looks at the prediction: the first time at once, then when it may have changed. `None` when the server shuts down
    /// and lets its client go. Should the look fail, the next one is had after a pause.
    pub async fn next(&mut self) -> Result<Option<Sight>> {
        let (shared, caller) = (&self.service.shared, self.held.caller);
        tokio::select! {
            biased;
            () = self.held.let_go() => return Ok(None),
            () = tokio::time::sleep(self.pause) => {}
            () = self.subscription.changed() => {}
        }
        self.pause = LOOK_AGAIN;
        let prediction = self.service.get(caller, self.id).await?;
        let place = self.service.queue_place(&prediction).await?;
        let progress = match prediction.status {
            Status::Processing => shared.store.progress(caller.account_id, self.id).await?,
            _ => None,
        };
        // Nobody tells when those ahead move on, and the longer the queue the less does it matter.
        if let Some(place) = place {
            self.pause = (place.eta / 8).clamp(PLACE_AGAIN.0, PLACE_AGAIN.1);
        }
        Ok(Some(Sight { prediction, place, progress }))
    }
}
