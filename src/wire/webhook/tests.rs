//! What receivers are told, word by word: one snapshot of each face and end.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use insta::assert_snapshot;
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::domain::{Artifact, Catalog, Failure, FailureCode, Input, InputLimits, NanoUsd, Status};

fn prediction(dialect: Dialect, status: Status) -> Prediction {
    let raw_input = json!({"prompt": "a lighthouse", "seed": 41, "num_outputs": 2});
    let limits = InputLimits::HOSTED;
    let (input, _) = Input::parse(&raw_input, &limits, &native::DEFAULTS, 0).expect("valid");
    Prediction {
        id: Uuid::from_u128(0x0197_0000_0000_7000_8000_0000_0000_0001).into(),
        account_id: 1,
        dialect,
        model: "sdxl-lightning-4step".into(),
        version: "0".repeat(64),
        raw_input,
        input,
        status,
        output: None,
        failure: None,
        logs: String::new(),
        attempt: 0,
        cancel_requested: false,
        device_time: None,
        cost: None,
        created_at: moment(0),
        started_at: None,
        completed_at: None,
        deadline: None,
        data_removed: false,
    }
}

fn ended(dialect: Dialect, status: Status) -> Prediction {
    Prediction {
        started_at: Some(moment(1_000)),
        completed_at: Some(moment(2_123_456)),
        device_time: Some(Duration::from_secs(2)),
        cost: Some(NanoUsd::new(3_080_000)),
        ..prediction(dialect, status)
    }
}

fn moment(microseconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_secs(1_790_000_000).expect("valid") + TimeDelta::microseconds(microseconds)
}

fn artifact(image: u64) -> Artifact {
    Artifact {
        key: format!("outputs/0197/1-random/out-{image}.png"),
        content_type: "image/png".into(),
        width: 1024,
        height: 1024,
        bytes: 1,
        seed: 41 + image,
        safety: None,
    }
}

fn succeeded(dialect: Dialect) -> Prediction {
    Prediction {
        output: Some(vec![artifact(0), artifact(1)]),
        logs: "Using seed: 41, 42\n".into(),
        ..ended(dialect, Status::Succeeded)
    }
}

fn failed(dialect: Dialect) -> Prediction {
    let failure = Failure { code: FailureCode::OutOfMemory, message: "the GPU has too little memory".into() };
    Prediction { failure: Some(failure), cost: Some(NanoUsd::ZERO), ..ended(dialect, Status::Failed) }
}

fn told(prediction: &Prediction, event: WebhookEvent, mount: &str) -> String {
    let catalog = Catalog::parse(include_str!("../../../config/models.toml")).expect("valid");
    let server = "https://example.com".parse().expect("valid");
    let body = body(prediction, event, catalog.by_slug(&prediction.model), &server, mount).expect("serializable");
    let body: Box<serde_json::value::RawValue> = serde_json::from_slice(&body).expect("JSON");
    // Line by line, in the order it is sent.
    body.get().replace(",\"", ",\n\"")
}

#[test]
fn replicate_is_told_the_prediction() {
    assert_snapshot!(told(&succeeded(Dialect::Replicate), WebhookEvent::Completed, "/replicate/v1"), @r#"
    {"id":"01970000-0000-7000-8000-000000000001",
    "model":"bytedance/sdxl-lightning-4step",
    "version":"0000000000000000000000000000000000000000000000000000000000000000",
    "input":{"num_outputs":2,
    "prompt":"a lighthouse",
    "seed":41},
    "logs":"Using seed: 41, 42\n",
    "output":["https://example.com/files/outputs/0197/1-random/out-0.png",
    "https://example.com/files/outputs/0197/1-random/out-1.png"],
    "data_removed":false,
    "error":null,
    "source":"api",
    "status":"succeeded",
    "created_at":"2026-09-21T14:13:20.000000Z",
    "started_at":"2026-09-21T14:13:20.001000Z",
    "completed_at":"2026-09-21T14:13:22.123456Z",
    "metrics":{"predict_time":2.0,
    "total_time":2.123456,
    "cost":0.00308},
    "urls":{"get":"https://example.com/replicate/v1/predictions/01970000-0000-7000-8000-000000000001",
    "cancel":"https://example.com/replicate/v1/predictions/01970000-0000-7000-8000-000000000001/cancel",
    "web":"https://example.com/replicate/v1/predictions/01970000-0000-7000-8000-000000000001"}}
    "#);
}

#[test]
fn replicate_is_told_of_an_output_before_the_end() {
    assert_snapshot!(told(&succeeded(Dialect::Replicate), WebhookEvent::Output, "/replicate/v1"), @r#"
    {"id":"01970000-0000-7000-8000-000000000001",
    "model":"bytedance/sdxl-lightning-4step",
    "version":"0000000000000000000000000000000000000000000000000000000000000000",
    "input":{"num_outputs":2,
    "prompt":"a lighthouse",
    "seed":41},
    "logs":"Using seed: 41, 42\n",
    "output":["https://example.com/files/outputs/0197/1-random/out-0.png",
    "https://example.com/files/outputs/0197/1-random/out-1.png"],
    "data_removed":false,
    "error":null,
    "source":"api",
    "status":"processing",
    "created_at":"2026-09-21T14:13:20.000000Z",
    "started_at":"2026-09-21T14:13:20.001000Z",
    "completed_at":null,
    "metrics":{},
    "urls":{"get":"https://example.com/replicate/v1/predictions/01970000-0000-7000-8000-000000000001",
    "cancel":"https://example.com/replicate/v1/predictions/01970000-0000-7000-8000-000000000001/cancel",
    "web":"https://example.com/replicate/v1/predictions/01970000-0000-7000-8000-000000000001"}}
    "#);
}

#[test]
fn replicate_is_told_of_a_start_as_it_was() {
    assert_snapshot!(told(&failed(Dialect::Replicate), WebhookEvent::Start, "/v1"), @r#"
    {"id":"01970000-0000-7000-8000-000000000001",
    "model":"bytedance/sdxl-lightning-4step",
    "version":"0000000000000000000000000000000000000000000000000000000000000000",
    "input":{"num_outputs":2,
    "prompt":"a lighthouse",
    "seed":41},
    "logs":"",
    "output":null,
    "data_removed":false,
    "error":null,
    "source":"api",
    "status":"processing",
    "created_at":"2026-09-21T14:13:20.000000Z",
    "started_at":"2026-09-21T14:13:20.001000Z",
    "completed_at":null,
    "metrics":{},
    "urls":{"get":"https://example.com/v1/predictions/01970000-0000-7000-8000-000000000001",
    "cancel":"https://example.com/v1/predictions/01970000-0000-7000-8000-000000000001/cancel",
    "web":"https://example.com/v1/predictions/01970000-0000-7000-8000-000000000001"}}
    "#);
}

#[test]
fn native_is_told_the_prediction() {
    assert_snapshot!(told(&failed(Dialect::Native), WebhookEvent::Completed, ""), @r#"
    {"id":"01970000-0000-7000-8000-000000000001",
    "model":"bytedance/sdxl-lightning-4step",
    "version":"0000000000000000000000000000000000000000000000000000000000000000",
    "status":"failed",
    "input":{"num_outputs":2,
    "prompt":"a lighthouse",
    "seed":41},
    "output":null,
    "error":"the GPU has too little memory",
    "error_code":"out_of_memory",
    "logs":"",
    "metrics":{"predict_time":2.0,
    "total_time":2.123456,
    "cost":0.00},
    "seeds":[41,42],
    "safety":null,
    "queue_position":null,
    "eta_seconds":null,
    "created_at":"2026-09-21T14:13:20.000000Z",
    "started_at":"2026-09-21T14:13:20.001000Z",
    "completed_at":"2026-09-21T14:13:22.123456Z",
    "deadline":null,
    "data_removed":false,
    "source":"api",
    "urls":{"get":"https://example.com/predictions/01970000-0000-7000-8000-000000000001",
    "cancel":"https://example.com/predictions/01970000-0000-7000-8000-000000000001/cancel"}}
    "#);
}

#[test]
fn eachlabs_is_told_in_words_of_its_own() {
    assert_snapshot!(told(&succeeded(Dialect::Eachlabs), WebhookEvent::Completed, "/v1"), @r#"
    {"exec_id":"01970000-0000-7000-8000-000000000001",
    "flow_id":null,
    "status":"succeeded",
    "output":["https://example.com/files/outputs/0197/1-random/out-0.png",
    "https://example.com/files/outputs/0197/1-random/out-1.png"],
    "error":""}
    "#);
}

#[test]
fn eachlabs_is_told_a_failure_in_the_output() {
    assert_snapshot!(told(&failed(Dialect::Eachlabs), WebhookEvent::Completed, "/v1"), @r#"
    {"exec_id":"01970000-0000-7000-8000-000000000001",
    "flow_id":null,
    "status":"failed",
    "output":[{"id":"",
    "status":"",
    "output":"",
    "error":"Error: the GPU has too little memory"}],
    "error":""}
    "#);
}
