//! What the examples show: a prediction that went well and what belongs to it.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, TimeZone, Utc};
use serde_json::{Value, json};

use crate::{
    domain::{
        AccountMode, AccountRecord, ApiKey, Artifact, Budget, Checksums, DeliveryState, Dialect, Input, KeyRecord,
        MadeAttempt, Model, NanoUsd, OutputFormat, Period, Prediction, Scope, Scopes, SigningSecret, Status, Upload,
        Usage, UsageGroup, UsageQuery, WebhookDelivery, WebhookEvent, WebhookLog,
    },
    wire::{BaseUrl, mounts, native},
};

/// One of each.
#[derive(Debug)]
pub(super) struct Samples {
    pub(super) server: BaseUrl,
    pub(super) input: Value,
    /// It has ended well.
    pub(super) prediction: Prediction,
    /// Where its pictures are.
    pub(super) urls: Vec<String>,
    /// A picture that has arrived.
    pub(super) upload: Upload,
    /// The prediction's end was told.
    pub(super) told: WebhookLog,
    pub(super) signing: SigningSecret,
    pub(super) key: ApiKey,
    pub(super) key_record: KeyRecord,
    pub(super) account: AccountRecord,
    pub(super) query: UsageQuery,
    pub(super) usage: [Usage; 1],
}

impl Samples {
    pub(super) const ID: &'static str = "0197f3a0-5bd3-7cc2-8e5c-3b1a2f4d5e6f";
    /// On the device.
    pub(super) const DEVICE_TIME: Duration = Duration::from_secs(2);

    /// Those of a model; all of them or, were one malformed, none.
    pub(super) fn of(model: &Model) -> Option<Self> {
        let server: BaseUrl = "https://images.example.com".parse().ok()?;
        let input = json!({"prompt": "a lighthouse at dusk", "width": 256, "height": 256, "seed": 7});
        let created_at = Utc.timestamp_opt(1_780_000_000, 0).single()?;
        let prediction = prediction(model, &input, created_at)?;
        let urls = prediction.output.iter().flatten().map(|file| server.file(&file.key)).collect();
        let key = ApiKey::from_entropy([1; 8], [2; 32]);
        let day = |day| NaiveDate::from_ymd_opt(2026, 1, day);
        Some(Self {
            urls,
            upload: upload(created_at)?,
            told: told(&prediction, &server)?,
            signing: SigningSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").ok()?,
            key_record: key_record(&key, created_at),
            key,
            account: account(created_at),
            query: UsageQuery { from: day(1)?, to: day(31)?, group_by: UsageGroup::Day },
            usage: [Usage {
                group: "2026-01-31".to_owned(),
                succeeded: 2,
                failed: 0,
                canceled: 0,
                device_time: 2 * Self::DEVICE_TIME,
                cost: model.price.cost_of(2 * Self::DEVICE_TIME),
            }],
            server,
            input,
            prediction,
        })
    }
}

fn prediction(model: &Model, raw_input: &Value, created_at: DateTime<Utc>) -> Option<Prediction> {
    let (input, _) = Input::parse(raw_input, &model.limits, &native::DEFAULTS, 7).ok()?;
    let output = Artifact {
        key: format!("outputs/{}/1-7f3b2c9d4e5a6b1c8d0e/out-0.png", Samples::ID),
        content_type: OutputFormat::Png.content_type().to_owned(),
        width: input.width,
        height: input.height,
        bytes: 61_440,
        seed: input.seed,
        safety: None,
    };
    Some(Prediction {
        id: Samples::ID.parse().ok()?,
        account_id: 1,
        dialect: Dialect::Native,
        model: model.slug.clone(),
        version: model.version.clone(),
        raw_input: raw_input.clone(),
        input,
        status: Status::Succeeded,
        output: Some(vec![output]),
        failure: None,
        logs: "Using seed: 7\n".to_owned(),
        attempt: 1,
        cancel_requested: false,
        device_time: Some(Samples::DEVICE_TIME),
        cost: Some(model.price.cost_of(Samples::DEVICE_TIME)),
        created_at,
        started_at: Some(created_at + Duration::from_millis(20)),
        completed_at: Some(created_at + Duration::from_millis(2_050)),
        deadline: None,
        data_removed: false,
    })
}

fn upload(created_at: DateTime<Utc>) -> Option<Upload> {
    Some(Upload {
        id: Samples::ID.parse().ok()?,
        account_id: 1,
        name: "cat.png".to_owned(),
        content_type: OutputFormat::Png.content_type().to_owned(),
        size: 61_440,
        checksums: Some(Checksums {
            sha256: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".to_owned(),
            md5: "098f6bcd4621d373cade4e832627b4f6".to_owned(),
        }),
        metadata: json!({"shelf": 7}),
        key: format!("uploads/{}/7f3b2c9d4e5a6b1c8d0e/picture.png", Samples::ID),
        created_at,
        expires_at: created_at + Duration::from_secs(86_400),
    })
}

fn told(prediction: &Prediction, server: &BaseUrl) -> Option<WebhookLog> {
    let ended_at = prediction.completed_at?;
    let attempt = MadeAttempt {
        made_at: ended_at + Duration::from_millis(130),
        took: Duration::from_millis(120),
        succeeded: true,
        status_code: Some(204),
        response: Some(String::new()),
        error: None,
    };
    let delivery = WebhookDelivery {
        id: "0197f3a0-63d4-7a10-9c41-5d2e8b7f6a01".parse().ok()?,
        event: WebhookEvent::Completed,
        state: DeliveryState::Delivered,
        created_at: ended_at,
        due_at: ended_at,
        attempts: vec![attempt],
    };
    Some(WebhookLog {
        prediction_id: prediction.id,
        url: "https://example.com/told".to_owned(),
        has_secret: false,
        server_url: server.to_string(),
        mount: mounts::EACHLABS.to_owned(),
        created_at: prediction.created_at,
        deliveries: vec![delivery],
    })
}

fn key_record(key: &ApiKey, created_at: DateTime<Utc>) -> KeyRecord {
    KeyRecord {
        account: "studio".to_owned(),
        name: "ci".to_owned(),
        lookup: key.lookup().to_owned(),
        scopes: Scopes::from_iter([Scope::PredictionsWrite, Scope::PredictionsRead]),
        budget: Some(Budget { amount: NanoUsd::new(5_000_000_000), period: Period::Day }),
        spent: NanoUsd::new(500_000_000),
        held: NanoUsd::ZERO,
        created_at,
        expires_at: None,
        revoked_at: None,
    }
}

fn account(created_at: DateTime<Utc>) -> AccountRecord {
    AccountRecord {
        name: "studio".to_owned(),
        mode: AccountMode::Prepaid,
        balance: NanoUsd::new(10_000_000_000),
        held: NanoUsd::ZERO,
        max_in_flight: Some(10),
        created_at,
    }
}
