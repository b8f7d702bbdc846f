//! Creating predictions: what is asked for is checked, priced and put in the queue, or was so before.

use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tracing::Span;

use super::{
    Error, PredictionService, Result, Shared, complete, current_request, internal, random_seed, request::body_is_done,
    start_image::NamedImage,
};
use crate::{
    domain::{
        CHECKER_KEPT, Caller, Dialect, FaceDefaults, Idempotency, ImageSource, Input, Model, NewPrediction, Prediction,
        PredictionId, Scope, Shortage, Webhook, check_raw_input,
    },
    spans,
    store::{self, Mark},
};

/// A request to create a prediction, as its face understood it.
#[derive(Clone, Debug)]
pub struct CreateRequest {
    /// The client's own id, for an idempotent create.
    pub id: Option<PredictionId>,
    /// The model by any of its names; the default model if `None`.
    pub model: Option<String>,
    /// A version id the model must have.
    pub version: Option<String>,
    /// The input object as it came.
    pub input: Value,
    /// The face.
    pub dialect: Dialect,
    /// What the face fills in.
    pub defaults: FaceDefaults,
    /// When to give up, counted from now.
    pub cancel_after: Option<Duration>,
    /// The client's key for an idempotent create without an id.
    pub idempotency_key: Option<String>,
    /// Run before others that have a greater one; for operators.
    pub priority: Option<i16>,
    /// Where to tell what becomes of it.
    pub webhook: Option<Webhook>,
}

impl CreateRequest {
    /// What a repetition must have in common with the first request.
    fn hash(&self) -> [u8; 32] {
        // The fields of an object are in the order of their names, so that it does not matter how they came.
        let mut what = vec![self.dialect.as_str().into(), json!(self.model), json!(self.version), self.input.clone()];
        if let Some(webhook) = &self.webhook {
            let events: Vec<_> = webhook.request.events.iter().map(|event| event.as_str()).collect();
            what.push(json!([webhook.request.url, events]));
        }
        let what = Value::from(what);
        Sha256::digest(what.to_string()).into()
    }
}

/// A create's result.
#[derive(Clone, Debug)]
pub struct Created {
    /// As it is now.
    pub prediction: Prediction,
    /// Whether it was made by this request, and not by an earlier one that was the same, with the same id or idempotency key.
    pub is_new: bool,
    /// What has changed since is still to be heard by whoever waits for it.
    pub mark: Mark,
}

impl PredictionService {
    /// Accepts a prediction: checks it, fixes its seed and price, and puts it in the queue.
    ///
    /// With an id or a key of the client's, repeating the request returns the prediction made the first time, whatever has
    /// become of the image it started from, and however long the queue is by now.
    pub async fn create(&self, caller: Caller, request: CreateRequest) -> Result<Created> {
        let created = self.accept(caller, request).await;
        // It is in the row and the store, and whoever waits now waits without it.
        body_is_done();
        created
    }

    async fn accept(&self, caller: Caller, request: CreateRequest) -> Result<Created> {
        let Shared { store, catalog, admission, .. } = &*self.shared;
        let asked = self.model_for(&request)?;
        let model = catalog.answering(asked);
        let may_be_repeated = request.id.is_some() || request.idempotency_key.is_some();
        // One that was not asked for, or not of the model that answers, may be another by the time the request is
        // repeated.
        let names_version = request.version.is_some() && model.slug == asked.slug;
        let (mut new, image) = self.read(caller, request, asked, model)?;
        if may_be_repeated {
            let mark = store.changes().mark();
            if let Some(prediction) = self.made_before(&new, names_version).await? {
                return Ok(Created { prediction, is_new: false, mark });
            }
        }
        admission.check_queue(store, &model.slug, self.known_run(model))?;
        let image = match image {
            Some(image) => {
                // What would be refused then has no image fetched before.
                store.check_means(&new).await.map_err(|error| self.shared.refused(new.account_id, error))?;
                Some(self.shared.load_image(&mut new, image, &model.limits).await?)
            }
            None => None,
        };
        // Both lines of the log, the request's and the prediction's end, are found from this one, wherever it runs.
        tracing::info!(prediction_id = %new.id, key_id = caller.key_id, model = new.model, "Queueing a prediction");
        complete(self.clone().insert(new, names_version, image)).await
    }

    /// What is asked for, as far as it can be told without asking anybody; with the image that is still to be loaded.
    fn read(
        &self,
        caller: Caller,
        request: CreateRequest,
        asked: &Model,
        model: &Model,
    ) -> Result<(NewPrediction, Option<NamedImage>)> {
        let (mut input, mut notes) =
            Input::parse(&request.input, &model.limits, &request.defaults, random_seed().map_err(internal)?)?;
        if request.priority.is_some() && !caller.scopes.contains(Scope::Admin) {
            return Err(Error::Forbidden(Scope::Admin));
        }
        if input.disable_safety_checker && !caller.scopes.contains(Scope::SafetyDisable) {
            input.disable_safety_checker = false;
            notes.extend(on_kept_checker(&request)?);
        }
        // Of all of it, which may be megabytes.
        let request_hash = request.idempotency_key.is_some().then(|| request.hash());
        let webhook = request.webhook.map(|webhook| self.shared.check_webhook(webhook)).transpose()?;
        let mut version = request.version;
        if model.slug != asked.slug {
            notes.push(format!("The weights of {} are not here; {} stands in for it", asked.slug, model.slug));
            version = None;
        }
        let mut raw_input = match request.input {
            Value::Null => Value::Object(serde_json::Map::new()),
            input => input,
        };
        let image = ImageSource::take(&mut raw_input).map(|(field, text)| NamedImage { field, text });
        check_raw_input(&raw_input)?;
        let new = NewPrediction {
            id: request.id.unwrap_or_else(PredictionId::generate),
            account_id: caller.account_id,
            key_id: caller.key_id,
            dialect: request.dialect,
            model: model.slug.clone(),
            version: version.unwrap_or_else(|| model.version.clone()),
            raw_input,
            input,
            notes,
            price: model.price,
            time_limit: model.time_limit(),
            longest_run: model.longest_run(),
            priority: request.priority.unwrap_or(0),
            cancel_after: request.cancel_after,
            idempotency: request
                .idempotency_key
                .zip(request_hash)
                .map(|(key, request_hash)| Idempotency { key, request_hash }),
            webhook,
            request_id: current_request(),
            trace_parent: spans::place_of(&Span::current()),
        };
        Ok((new, image))
    }

    /// The prediction that an earlier request has made which was the same: by its key, or else by its id. One whose data
    /// was removed is taken for the same: nobody else of the account knows its id.
    async fn made_before(&self, new: &NewPrediction, names_version: bool) -> Result<Option<Prediction>> {
        let store = &self.shared.store;
        if let Some(idempotency) = &new.idempotency {
            return Ok(store.find_repeated(new.account_id, idempotency).await?);
        }
        let asked_for = |made: &Prediction| {
            let is_same_version = !names_version || made.version == new.version;
            made.data_removed || is_same_version && (&made.model, &made.raw_input) == (&new.model, &new.raw_input)
        };
        match store.get(new.account_id, new.id).await? {
            Some(made) if !asked_for(&made) => Err(Error::Conflict(new.id)),
            made => Ok(made),
        }
    }

    /// Stores the image and the row, or finds the row that was there before.
    async fn insert(self, mut new: NewPrediction, names_version: bool, image: Option<Vec<u8>>) -> Result<Created> {
        let Shared { store, artifacts, .. } = &*self.shared;
        let mark = store.changes().mark();
        if let Some(bytes) = image {
            new.input.image = Some(self.shared.store_image(new.id, bytes).await?);
        }
        match store.create(&new).await {
            Ok(Some(prediction)) => return Ok(Created { prediction, is_new: true, mark }),
            Ok(None) => {}
            // Perhaps it is there all the same, and wants its image; if not, that is swept away like any lost file.
            Err(error @ store::Error::Unavailable(_)) => return Err(error.into()),
            Err(error) => {
                artifacts.delete(new.input.image.take().into_iter().collect()).await;
                return Err(self.shared.refused(new.account_id, error));
            }
        }
        artifacts.delete(new.input.image.take().into_iter().collect()).await;
        match self.made_before(&new, names_version).await? {
            Some(prediction) => Ok(Created { prediction, is_new: false, mark }),
            None if new.idempotency.is_some() => Err(Error::KeyReused),
            // Somebody else's, and nobody learns more of it than that it is not there for them.
            None => Err(Error::NotFound),
        }
    }

    /// The model that a request names, by any of its names.
    pub(super) fn model_for(&self, request: &CreateRequest) -> Result<&Model> {
        let catalog = &self.shared.catalog;
        let unknown_version = |version: &String| Error::UnknownVersion(version.clone());
        match (&request.model, &request.version) {
            (None, None) => Ok(catalog.default_model()),
            (Some(name), None) => catalog.find(name).ok_or_else(|| Error::UnknownModel(name.clone())),
            // Replicate's clients name only the version, bare or with the model in front.
            (None, Some(version)) => catalog.find(version).ok_or_else(|| unknown_version(version)),
            (Some(name), Some(version)) => {
                let named = catalog.find(name).ok_or_else(|| Error::UnknownModel(name.clone()))?;
                if named.has_version(version) { Ok(named) } else { Err(unknown_version(version)) }
            }
        }
    }
}

impl Shared {
    /// Why the store refused a create; an account that is full is believed to be for a while.
    fn refused(&self, account_id: i64, error: store::Error) -> Error {
        if let store::Error::Refused(shortage @ Shortage::InFlight { .. }) = error {
            self.full.put(account_id, shortage);
        }
        error.into()
    }
}

/// What is said to who may not turn the safety checker off: it stays on, and where its caller wants something else a note
/// says so or the request is refused.
fn on_kept_checker(request: &CreateRequest) -> Result<Option<String>> {
    let switches = ["disable_safety_checker", "enable_safety_checker"];
    let is_asked_for = switches.into_iter().any(|switch| Input::is_given(&request.input, switch));
    match request.dialect {
        // A face's habit is not its caller's wish.
        _ if !is_asked_for => Ok(None),
        // It is an input of the vendors' own models, and their clients' code and samples ask for it as for all that is usual.
        Dialect::Eachlabs | Dialect::Replicate => Ok(Some(CHECKER_KEPT.to_owned())),
        Dialect::Native | Dialect::OpenAi => Err(Error::Forbidden(Scope::SafetyDisable)),
    }
}
