//! The native face: its JSON, which is Replicate's prediction object and a little more.
//!
//! What is more: the seed of each image, whether they were checked, the place in the queue, the cost, and a code beside each error. Every field is
//! always there, `null` while it has no value.

pub mod body;
mod estimate;
pub mod events;
mod file;
mod webhook;

use serde::{Serialize, Serializer};
use serde_json::Value;
use utoipa::{
    ToSchema,
    openapi::{Object, ObjectBuilder, schema::Type},
};

use super::{
    BaseUrl, InputSchema, Refusal,
    exact::{Dollars, Moment, Seconds},
    webhook as webhook_fields,
};
use crate::domain::{
    self, FaceDefaults, InvalidField, InvalidInput, PredictionId, QueuePlace, Status, UnknownFields, WebhookEvent,
    WebhookRequest,
};

pub use file::{File, create_from_form, new_file};
pub use webhook::{Secret, Webhook};

pub use estimate::Estimate;

/// What the native face fills in, as the model's authors have it.
pub const DEFAULTS: FaceDefaults = FaceDefaults {
    prompt: "self-portrait of a woman, lightning in the background",
    negative_prompt: "worst quality, low quality",
    disable_safety_checker: false,
    has_seed_minus_one: false,
    unknown_fields: UnknownFields::Refuse,
};

/// As far as priorities go, up and down.
const PRIORITIES: i16 = 100;

/// The native word for a status.
pub const fn status_word(status: Status) -> &'static str {
    match status {
        Status::Queued => "starting",
        Status::Processing => "processing",
        Status::Succeeded => "succeeded",
        Status::Failed => "failed",
        Status::Canceled => "canceled",
    }
}

/// The status a native word means.
pub fn parse_status(word: &str) -> Option<Status> {
    Status::ALL.into_iter().find(|status| status_word(*status) == word)
}

/// The body of a request to create a prediction.
#[derive(Clone, Debug, PartialEq)]
pub struct CreatePrediction {
    /// The model, by any of its names.
    pub model: Option<String>,
    /// A version of it.
    pub version: Option<String>,
    /// The input, as it came.
    pub input: Value,
    /// Those with a smaller number are run first; others have 0.
    pub priority: Option<i16>,
    /// Where to tell what becomes of it.
    pub webhook: Option<WebhookRequest>,
}

impl CreatePrediction {
    /// Reads a body field by field, so that everything wrong with it is named at once.
    pub fn parse(body: Value) -> Result<Self, InvalidInput> {
        let Value::Object(mut fields) = body else {
            return Err(InvalidInput::one("body", "must be a JSON object"));
        };
        let mut invalid = Vec::new();
        let mut text = |name: &str| match fields.remove(name) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text),
            Some(_) => {
                invalid.push(InvalidField { field: name.to_owned(), reason: "must be a string".to_owned() });
                None
            }
        };
        let (model, version) = (text("model"), text("version"));
        let input = fields.remove("input").unwrap_or_default();
        let priority = fields.remove("priority").filter(|priority| !priority.is_null()).map(|priority| {
            let priority = priority.as_i64().and_then(|priority| i16::try_from(priority).ok());
            priority.filter(|priority| (-PRIORITIES..=PRIORITIES).contains(priority))
        });
        if priority == Some(None) {
            let reason = format!("must be an integer between -{PRIORITIES} and {PRIORITIES}; the least is run first");
            invalid.push(InvalidField { field: "priority".to_owned(), reason });
        }
        let mut webhook = webhook_fields::take(&mut fields, &[WebhookEvent::Completed], &mut invalid);
        webhook_fields::take_secret(&mut fields, &mut webhook, &mut invalid);
        for name in fields.into_iter().map(|(name, _)| name).take(InvalidInput::MOST_UNKNOWN) {
            let reason = "is not a field of a prediction; known are model, version, input, priority, webhook, \
                          webhook_events_filter and webhook_secret";
            invalid.push(InvalidField { field: name, reason: reason.to_owned() });
        }
        if invalid.is_empty() {
            Ok(Self { model, version, input, priority: priority.flatten(), webhook })
        } else {
            Err(InvalidInput { fields: invalid })
        }
    }
}

fn statuses() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(Status::ALL.map(status_word)))
        .description(Some("How far it is."))
        .build()
}

/// A prediction as its owner sees it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = native::Prediction)]
pub struct Prediction<'a> {
    /// By which it is asked for.
    #[schema(value_type = uuid::Uuid)]
    id: PredictionId,
    /// With its owner.
    model: String,
    /// Of the model.
    version: &'a str,
    #[schema(schema_with = statuses)]
    status: &'static str,
    /// As it came; of an inline picture the start.
    input: &'a Value,
    /// Where the pictures can be read, in order.
    output: Option<Vec<String>>,
    /// Why it failed.
    error: Option<&'a str>,
    /// The same for programs.
    error_code: Option<&'static str>,
    /// Remarks, seeds and progress, in lines.
    logs: &'a str,
    /// What it took, once it has ended.
    metrics: Option<Metrics>,
    /// Of each picture: what alone draws it again.
    seeds: Vec<u64>,
    /// What the safety checker had to do with the pictures.
    safety: Option<&'static str>,
    /// While it is queued: 1 is the next.
    queue_position: Option<u64>,
    /// While it is queued: when it should be done.
    eta_seconds: Option<Seconds>,
    /// When it was accepted.
    created_at: Moment,
    /// When it was first taken by a worker.
    started_at: Option<Moment>,
    /// When it ended.
    completed_at: Option<Moment>,
    /// When it is canceled, if it has not ended.
    deadline: Option<Moment>,
    /// Whether pictures and logs have been deleted.
    data_removed: bool,
    /// Always `api`.
    source: &'static str,
    /// Where to look at it.
    urls: Urls,
}

/// What a terminal prediction took.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = native::Metrics)]
struct Metrics {
    /// On the device; what is paid for.
    predict_time: Seconds,
    /// From creation to the end.
    total_time: Seconds,
    /// What it cost.
    cost: Dollars,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = native::Urls)]
struct Urls {
    /// Itself.
    get: String,
    /// To `POST` to.
    cancel: String,
}

impl<'a> Prediction<'a> {
    /// The document of a prediction. The model lends its full name; the catalog may have lost it since.
    pub fn new(
        prediction: &'a domain::Prediction,
        model: Option<&domain::Model>,
        place: Option<QueuePlace>,
        base: &BaseUrl,
    ) -> Self {
        let url = prediction_url(base, prediction.id);
        let output = prediction.output.as_ref();
        let failure = prediction.failure.as_ref();
        Self {
            id: prediction.id,
            model: model.map_or_else(|| prediction.model.clone(), domain::Model::full_name),
            version: &prediction.version,
            status: status_word(prediction.status),
            input: &prediction.raw_input,
            output: output.map(|artifacts| artifacts.iter().map(|artifact| base.file(&artifact.key)).collect()),
            error: failure.map(|failure| failure.message.as_str()),
            error_code: failure.map(|failure| failure.code.as_str()),
            logs: &prediction.logs,
            metrics: metrics(prediction),
            // An image that was left out has taken its seed along.
            seeds: match output {
                Some(artifacts) => artifacts.iter().map(|artifact| artifact.seed).collect(),
                None => prediction.input.seeds().collect(),
            },
            safety: output.and_then(|artifacts| Some(artifacts.first()?.safety?.as_str())),
            // The next to be claimed is at position 1.
            queue_position: place.map(|place| place.ahead + 1),
            eta_seconds: place.map(|place| Seconds(place.eta)),
            created_at: Moment(prediction.created_at),
            started_at: prediction.started_at.map(Moment),
            completed_at: prediction.completed_at.map(Moment),
            deadline: prediction.deadline.map(Moment),
            data_removed: prediction.data_removed,
            source: "api",
            urls: Urls { cancel: format!("{url}/cancel"), get: url },
        }
    }
}

/// Where a prediction is.
pub fn prediction_url(base: &BaseUrl, id: PredictionId) -> String {
    format!("{base}/predictions/{id}")
}

fn metrics(prediction: &domain::Prediction) -> Option<Metrics> {
    let total_time = (prediction.completed_at? - prediction.created_at).to_std().unwrap_or_default();
    Some(Metrics {
        predict_time: Seconds(prediction.device_time?),
        total_time: Seconds(total_time),
        cost: Dollars(prediction.cost?),
    })
}

/// Some of a list, and where the rest is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = native::Page)]
pub struct Page<T> {
    /// In order.
    pub results: Vec<T>,
    /// The absolute URL of what follows.
    pub next: Option<String>,
}

/// A model and how to ask for it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = native::Model)]
pub struct Model<'a> {
    /// With its owner.
    name: String,
    /// The name for requests.
    slug: &'a str,
    /// A heading.
    title: &'a str,
    /// A sentence.
    description: &'a str,
    /// Its id as it is now.
    version: &'a str,
    /// The slug of the model that draws in its place, because its weights are not here.
    answered_by: Option<&'a str>,
    /// Of time on the device.
    price_per_second: Dollars,
    /// Measured here, or the catalog's figure.
    typical_run_seconds: Seconds,
    /// Of the input, as JSON Schema.
    #[schema(value_type = Object)]
    input_schema: InputSchema,
    /// Where this document is.
    url: String,
}

impl<'a> Model<'a> {
    /// The document of a model whose runs typically take that long here. `answering` is the model that draws when this
    /// one is asked for: another where its weights are not here, and then its slug is said.
    pub fn new(
        model: &'a domain::Model,
        answering: &'a domain::Model,
        typical_run: std::time::Duration,
        base: &BaseUrl,
    ) -> Self {
        Self {
            name: model.full_name(),
            slug: &model.slug,
            title: &model.title,
            description: &model.description,
            version: &model.version,
            answered_by: (answering.slug != model.slug).then_some(answering.slug.as_str()),
            price_per_second: Dollars(model.price.per_second()),
            typical_run_seconds: Seconds(typical_run),
            input_schema: InputSchema::new(&model.limits),
            url: format!("{base}/models/{}", model.slug),
        }
    }
}

/// Why a request was refused: RFC 9457's `application/problem+json`, with a code for programs and every invalid field.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = native::Problem)]
pub struct Problem {
    /// There are no pages about our problems, so the standard's own word for "see the status".
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The status in words.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// For people.
    pub detail: String,
    /// For programs.
    pub code: &'static str,
    /// What was wrong where, if it was the request's content.
    #[serde(serialize_with = "invalid_fields", skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Field>)]
    pub invalid_fields: Vec<InvalidField>,
    /// By which the server's logs know the request.
    pub request_id: String,
}

impl Problem {
    /// The problem a refusal is.
    pub fn new(refusal: Refusal, request_id: String) -> Self {
        let Refusal { code, detail, invalid_fields } = refusal;
        let status = code.status();
        Self {
            // RFC 9457: nothing is to be known about this kind of problem beyond its status.
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail,
            code: code.as_str(),
            invalid_fields,
            request_id,
        }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = native::InvalidField)]
struct Field<'a> {
    /// Its path in the body, or a header.
    field: &'a str,
    /// What was wrong with it.
    reason: &'a str,
}

fn invalid_fields<S: Serializer>(fields: &[InvalidField], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(fields.iter().map(|field| Field { field: &field.field, reason: &field.reason }))
}

#[cfg(test)]
mod tests;
