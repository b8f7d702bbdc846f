//! What comes after the device: encode the images, store them, and end the prediction in its row.

use std::time::Instant;

use anyhow::Context;
use tracing::Instrument;

use super::{
    device::Run,
    encode,
    held::{Held, StopReason},
    outage::{GIVE_UP, TRY_AGAIN, waited_for},
    predictor::{Drawn, PredictError},
    progress::Logs,
};
use crate::{
    artifacts::Artifacts,
    domain::{Artifact, Failure, FailureCode, NanoUsd, Outcome},
    metrics::{self, Stage},
    store::{self, Claim, Store},
};

/// Brings a run's result to its row. Never fails: what cannot be written now is left to the sweep.
pub(super) async fn conclude(
    store: &Store,
    artifacts: &Artifacts,
    claim: &Claim,
    held: &Held,
    mut logs: Logs,
    run: Run,
) {
    let Run { result, device_time, .. } = run;
    let outcome = match (result, held.stop_reason()) {
        (Err(PredictError::Canceled), Some(StopReason::HandedBack)) => return hand_back(store, claim).await,
        (Err(PredictError::Canceled), Some(StopReason::LeaseLost)) => {
            tracing::info!("Stopped a prediction that was taken away");
            return;
        }
        (Err(PredictError::DeviceLost), _) => return give_up(store, claim).await,
        (Err(PredictError::Canceled), _) => Outcome::Canceled { device_time },
        (Err(PredictError::Failed(failure)), _) => Outcome::Failed { failure, device_time },
        (Ok(drawn), _) => {
            drawn.notes.iter().for_each(|note| logs.note(note));
            match store_images(artifacts, claim, drawn).await {
                Ok(output) => Outcome::Succeeded { output, device_time },
                Err(error) => {
                    tracing::error!(error = format!("{error:#}"), "Could not store the images of a prediction");
                    let message = "the images could not be stored".to_owned();
                    Outcome::Failed { failure: Failure { code: FailureCode::Internal, message }, device_time }
                }
            }
        }
    };
    finish(store, artifacts, claim, &outcome, &logs).await;
}

async fn store_images(artifacts: &Artifacts, claim: &Claim, drawn: Drawn) -> anyhow::Result<Vec<Artifact>> {
    let folder = Artifacts::attempt_folder(claim.id, claim.attempt).context("no random bytes")?;
    let mut output = Vec::with_capacity(drawn.images.len());
    for (index, (image, seed)) in drawn.images.into_iter().zip(claim.input.seeds()).enumerate() {
        // The numbering keeps the gap.
        let Some(image) = image else { continue };
        let (width, height) = image.dimensions();
        let (model, input) = (claim.model.clone(), claim.input.clone());
        let begun = Instant::now();
        let encoding = tokio::task::spawn_blocking(move || encode::encode(&image, &model, &input, seed));
        let bytes = encoding.instrument(tracing::info_span!("encode")).await.context("the encoder panicked")??;
        metrics::stage_ended(Stage::Png, begun.elapsed());
        let format = claim.input.output_format;
        let key = format!("{folder}/out-{index}.{}", format.as_str());
        let artifact = Artifact {
            key: key.clone(),
            content_type: format.content_type().to_owned(),
            width,
            height,
            bytes: bytes.len() as u64,
            seed,
            safety: Some(drawn.safety),
        };
        let begun = Instant::now();
        waited_for(|| artifacts.put(&key, bytes.clone())).instrument(tracing::info_span!("store")).await?;
        metrics::stage_ended(Stage::Store, begun.elapsed());
        output.push(artifact);
    }
    Ok(output)
}

async fn finish(store: &Store, artifacts: &Artifacts, claim: &Claim, outcome: &Outcome, logs: &Logs) {
    let begun = tokio::time::Instant::now();
    // A database that went away in the middle may have kept the result all the same. Then a later try finds the row
    // ended, by ourselves, and the images belong to it.
    let mut may_have_ended_it = false;
    loop {
        match finish_once(store, claim, outcome, logs, may_have_ended_it)
            .instrument(tracing::info_span!("finish"))
            .await
        {
            Ok(cost) => {
                let Claim { model, input, .. } = claim;
                // The only line of a prediction that is always written: whoever counts, counts these.
                tracing::info!(
                    prediction_id = %claim.id,
                    status = outcome.status().as_str(),
                    key_id = claim.key_id,
                    model,
                    width = input.width,
                    height = input.height,
                    steps = input.num_inference_steps,
                    outputs = input.num_outputs,
                    attempt = claim.attempt,
                    queue_ms = claim.waited.as_millis() as u64,
                    predict_ms = outcome.device_time().as_millis() as u64,
                    cost_usd = %cost,
                    "Finished prediction {}",
                    claim.id
                );
                return;
            }
            Err(store::Error::Unavailable(error)) if begun.elapsed() < GIVE_UP => {
                may_have_ended_it = true;
                tracing::warn!(%error, "The database is away; the result waits for it");
                tokio::time::sleep(TRY_AGAIN).await;
            }
            Err(error) => {
                if matches!(error, store::Error::LeaseLost) {
                    metrics::result_fenced();
                }
                tracing::warn!(%error, "The result of prediction {} was dropped", claim.id);
                if let Outcome::Succeeded { output, .. } = outcome
                    && !may_have_ended_it
                {
                    artifacts.delete(output.iter().map(|artifact| artifact.key.clone()).collect()).await;
                }
                return;
            }
        }
    }
}

/// Ends the prediction, or sees to it that an end it may have had before is saved and told.
async fn finish_once(
    store: &Store,
    claim: &Claim,
    outcome: &Outcome,
    logs: &Logs,
    may_have_ended_it: bool,
) -> store::Result<NanoUsd> {
    match store.finish(claim, outcome, logs.text()).await {
        Err(store::Error::LeaseLost) if may_have_ended_it => store.confirm_finish(claim, outcome).await,
        finished => finished,
    }
}

async fn hand_back(store: &Store, claim: &Claim) {
    match store.hand_back(claim).await {
        Ok(true) => tracing::info!("Handed prediction {} back to the queue", claim.id),
        Ok(false) => tracing::info!("Prediction {} was canceled while its worker shut down", claim.id),
        Err(error) => tracing::warn!(%error, "Could not hand prediction {} back; its lease will run out", claim.id),
    }
}

async fn give_up(store: &Store, claim: &Claim) {
    match store.give_up(claim).await {
        Ok(()) => tracing::warn!("The device is gone; prediction {} is left to another", claim.id),
        Err(error) => tracing::warn!(%error, "Could not give prediction {} up; its lease will run out", claim.id),
    }
}
