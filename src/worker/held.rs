//! The claims a worker holds: their leases, and the word that ends one before its time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    domain::PredictionId,
    store::{Claim, Store},
};

/// Why a run is stopped before it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StopReason {
    /// Its owner asked for it, or its deadline passed.
    Canceled,
    /// Another worker may have it by now.
    LeaseLost,
    /// This worker shuts down; another shall have it.
    HandedBack,
}

/// A claim held, and how to stop it.
#[derive(Clone, Debug)]
pub(super) struct Held {
    claim: Arc<Claim>,
    stop: CancellationToken,
    reason: Arc<OnceLock<StopReason>>,
}

impl Held {
    /// Canceled when the run shall stop.
    pub(super) fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Why it was stopped, if it was. The first reason stands.
    pub(super) fn stop_reason(&self) -> Option<StopReason> {
        self.reason.get().copied()
    }

    fn stop(&self, reason: StopReason) {
        // A second reason changes nothing.
        let _ = self.reason.set(reason);
        self.stop.cancel();
    }
}

/// All claims of one worker. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct HeldClaims {
    held: Arc<Mutex<HashMap<PredictionId, Held>>>,
}

impl HeldClaims {
    fn lock(&self) -> MutexGuard<'_, HashMap<PredictionId, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds a claim from now on.
    pub(super) fn hold(&self, claim: &Claim) -> Held {
        let held = Held { claim: Arc::new(claim.clone()), stop: CancellationToken::new(), reason: Arc::default() };
        self.lock().insert(claim.id, held.clone());
        held
    }

    /// Lets a concluded claim go. A later claim of the same prediction stays.
    pub(super) fn release(&self, concluded: &Held) {
        let mut held = self.lock();
        if held.get(&concluded.claim.id).is_some_and(|held| Arc::ptr_eq(&held.claim, &concluded.claim)) {
            held.remove(&concluded.claim.id);
        }
    }

    /// The claims held now.
    pub(super) fn claims(&self) -> Vec<(PredictionId, i32)> {
        self.lock().iter().map(|(id, held)| (*id, held.claim.attempt)).collect()
    }

    /// Puts everything back in the queue without waiting for the device, which is inside a long step.
    pub(super) async fn abandon(&self, store: &Store) {
        let held: Vec<Held> = self.lock().values().cloned().collect();
        for Held { claim, .. } in held {
            if let Err(error) = store.hand_back(&claim).await {
                tracing::warn!(%error, "Could not hand prediction {} back; its lease will run out", claim.id);
            }
        }
    }

    /// Lets everything go for another worker to have it, without waiting for the device, which will never be done.
    pub(super) async fn give_all_up(&self, store: &Store) {
        let held: Vec<Held> = self.lock().drain().map(|(_, held)| held).collect();
        for Held { claim, .. } in held {
            if let Err(error) = store.give_up(&claim).await {
                tracing::warn!(%error, "Could not give prediction {} up; its lease will run out", claim.id);
            }
        }
    }

    /// Stops everything so that another worker can have it.
    pub(super) fn hand_all_back(&self) {
        self.lock().values().for_each(|held| held.stop(StopReason::HandedBack));
    }

    /// Renews the leases of some claims, and stops those that were taken away or shall be canceled.
    pub(super) async fn renew(&self, store: &Store, worker_id: Uuid, claims: &[(PredictionId, i32)], lease: Duration) {
        let renewals = match store.renew(worker_id, claims, lease).await {
            Ok(renewals) => renewals,
            // Nothing is known. If the lease runs out meanwhile, the finish is fenced.
            Err(error) => {
                tracing::warn!(%error, "Could not renew leases");
                return;
            }
        };
        let held = self.lock();
        for (id, attempt) in claims {
            let Some(claim) = held.get(id).filter(|held| held.claim.attempt == *attempt) else { continue };
            match renewals.iter().find(|renewal| renewal.id == *id) {
                Some(renewal) if renewal.cancel_requested => claim.stop(StopReason::Canceled),
                Some(_) => {}
                // Finished by us a moment ago, or taken away; stopping hurts neither.
                None => claim.stop(StopReason::LeaseLost),
            }
        }
    }
}
