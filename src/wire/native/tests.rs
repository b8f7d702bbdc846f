//! The native face, word by word: one snapshot of each state a prediction can be seen in.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use domain::{Artifact, Catalog, Dialect, Failure, FailureCode, Input, NanoUsd};
use insta::assert_snapshot;
use serde_json::json;
use uuid::Uuid;

use super::*;

fn prediction(status: Status) -> domain::Prediction {
    let raw_input = json!({"prompt": "a lighthouse", "seed": 41, "num_outputs": 2});
    let limits = domain::InputLimits::HOSTED;
    let (input, _) = Input::parse(&raw_input, &limits, &DEFAULTS, 0).expect("valid");
    domain::Prediction {
        id: Uuid::from_u128(0x0197_0000_0000_7000_8000_0000_0000_0001).into(),
        account_id: 1,
        dialect: Dialect::Native,
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

fn ended(status: Status) -> domain::Prediction {
    domain::Prediction {
        started_at: Some(moment(1_000)),
        completed_at: Some(moment(2_123_456)),
        device_time: Some(Duration::from_secs(2)),
        cost: Some(NanoUsd::new(3_080_000)),
        ..prediction(status)
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
        safety: Some(domain::Safety::Checked),
    }
}

fn document(prediction: &domain::Prediction, place: Option<QueuePlace>) -> String {
    let catalog = Catalog::parse(include_str!("../../../config/models.toml")).expect("valid");
    let base = "https://example.com".parse().expect("valid");
    let document = Prediction::new(prediction, catalog.by_slug(&prediction.model), place, &base);
    serde_json::to_string_pretty(&document).expect("serializable")
}

#[test]
fn queued() {
    let place = QueuePlace { ahead: 2, eta: Duration::from_millis(6_100) };
    assert_snapshot!(document(&prediction(Status::Queued), Some(place)), @r#"
    {
      "id": "01970000-0000-7000-8000-000000000001",
      "model": "bytedance/sdxl-lightning-4step",
      "version": "0000000000000000000000000000000000000000000000000000000000000000",
      "status": "starting",
      "input": {
        "num_outputs": 2,
        "prompt": "a lighthouse",
        "seed": 41
      },
      "output": null,
      "error": null,
      "error_code": null,
      "logs": "",
      "metrics": null,
      "seeds": [
        41,
        42
      ],
      "safety": null,
      "queue_position": 3,
      "eta_seconds": 6.1,
      "created_at": "2026-09-21T14:13:20.000000Z",
      "started_at": null,
      "completed_at": null,
      "deadline": null,
      "data_removed": false,
      "source": "api",
      "urls": {
        "get": "https://example.com/predictions/01970000-0000-7000-8000-000000000001",
        "cancel": "https://example.com/predictions/01970000-0000-7000-8000-000000000001/cancel"
      }
    }
    "#);
}

#[test]
fn processing() {
    let running = domain::Prediction {
        started_at: Some(moment(1_000)),
        deadline: Some(moment(60_000_000)),
        logs: " 50%|##        | 2/4\n".into(),
        ..prediction(Status::Processing)
    };
    assert_snapshot!(document(&running, None), @r#"
    {
      "id": "01970000-0000-7000-8000-000000000001",
      "model": "bytedance/sdxl-lightning-4step",
      "version": "0000000000000000000000000000000000000000000000000000000000000000",
      "status": "processing",
      "input": {
        "num_outputs": 2,
        "prompt": "a lighthouse",
        "seed": 41
      },
      "output": null,
      "error": null,
      "error_code": null,
      "logs": " 50%|##        | 2/4\n",
      "metrics": null,
      "seeds": [
        41,
        42
      ],
      "safety": null,
      "queue_position": null,
      "eta_seconds": null,
      "created_at": "2026-09-21T14:13:20.000000Z",
      "started_at": "2026-09-21T14:13:20.001000Z",
      "completed_at": null,
      "deadline": "2026-09-21T14:14:20.000000Z",
      "data_removed": false,
      "source": "api",
      "urls": {
        "get": "https://example.com/predictions/01970000-0000-7000-8000-000000000001",
        "cancel": "https://example.com/predictions/01970000-0000-7000-8000-000000000001/cancel"
      }
    }
    "#);
}

#[test]
fn succeeded() {
    let output = Some(vec![artifact(0), artifact(1)]);
    assert_snapshot!(document(&domain::Prediction { output, ..ended(Status::Succeeded) }, None), @r#"
    {
      "id": "01970000-0000-7000-8000-000000000001",
      "model": "bytedance/sdxl-lightning-4step",
      "version": "0000000000000000000000000000000000000000000000000000000000000000",
      "status": "succeeded",
      "input": {
        "num_outputs": 2,
        "prompt": "a lighthouse",
        "seed": 41
      },
      "output": [
        "https://example.com/files/outputs/0197/1-random/out-0.png",
        "https://example.com/files/outputs/0197/1-random/out-1.png"
      ],
      "error": null,
      "error_code": null,
      "logs": "",
      "metrics": {
        "predict_time": 2.0,
        "total_time": 2.123456,
        "cost": 0.00308
      },
      "seeds": [
        41,
        42
      ],
      "safety": "checked",
      "queue_position": null,
      "eta_seconds": null,
      "created_at": "2026-09-21T14:13:20.000000Z",
      "started_at": "2026-09-21T14:13:20.001000Z",
      "completed_at": "2026-09-21T14:13:22.123456Z",
      "deadline": null,
      "data_removed": false,
      "source": "api",
      "urls": {
        "get": "https://example.com/predictions/01970000-0000-7000-8000-000000000001",
        "cancel": "https://example.com/predictions/01970000-0000-7000-8000-000000000001/cancel"
      }
    }
    "#);
}

#[test]
fn failed() {
    let failure = Some(Failure { code: FailureCode::OutOfMemory, message: "the device is full".into() });
    let failed = domain::Prediction { failure, cost: Some(NanoUsd::ZERO), ..ended(Status::Failed) };
    assert_snapshot!(document(&failed, None), @r#"
    {
      "id": "01970000-0000-7000-8000-000000000001",
      "model": "bytedance/sdxl-lightning-4step",
      "version": "0000000000000000000000000000000000000000000000000000000000000000",
      "status": "failed",
      "input": {
        "num_outputs": 2,
        "prompt": "a lighthouse",
        "seed": 41
      },
      "output": null,
      "error": "the device is full",
      "error_code": "out_of_memory",
      "logs": "",
      "metrics": {
        "predict_time": 2.0,
        "total_time": 2.123456,
        "cost": 0.00
      },
      "seeds": [
        41,
        42
      ],
      "safety": null,
      "queue_position": null,
      "eta_seconds": null,
      "created_at": "2026-09-21T14:13:20.000000Z",
      "started_at": "2026-09-21T14:13:20.001000Z",
      "completed_at": "2026-09-21T14:13:22.123456Z",
      "deadline": null,
      "data_removed": false,
      "source": "api",
      "urls": {
        "get": "https://example.com/predictions/01970000-0000-7000-8000-000000000001",
        "cancel": "https://example.com/predictions/01970000-0000-7000-8000-000000000001/cancel"
      }
    }
    "#);
}

#[test]
fn canceled_before_it_started() {
    let canceled = domain::Prediction {
        started_at: None,
        device_time: Some(Duration::ZERO),
        cost: Some(NanoUsd::ZERO),
        ..ended(Status::Canceled)
    };
    assert_snapshot!(document(&canceled, None), @r#"
    {
      "id": "01970000-0000-7000-8000-000000000001",
      "model": "bytedance/sdxl-lightning-4step",
      "version": "0000000000000000000000000000000000000000000000000000000000000000",
      "status": "canceled",
      "input": {
        "num_outputs": 2,
        "prompt": "a lighthouse",
        "seed": 41
      },
      "output": null,
      "error": null,
      "error_code": null,
      "logs": "",
      "metrics": {
        "predict_time": 0.0,
        "total_time": 2.123456,
        "cost": 0.00
      },
      "seeds": [
        41,
        42
      ],
      "safety": null,
      "queue_position": null,
      "eta_seconds": null,
      "created_at": "2026-09-21T14:13:20.000000Z",
      "started_at": null,
      "completed_at": "2026-09-21T14:13:22.123456Z",
      "deadline": null,
      "data_removed": false,
      "source": "api",
      "urls": {
        "get": "https://example.com/predictions/01970000-0000-7000-8000-000000000001",
        "cancel": "https://example.com/predictions/01970000-0000-7000-8000-000000000001/cancel"
      }
    }
    "#);
}

#[test]
fn succeeded_and_its_data_removed() {
    let removed = domain::Prediction { raw_input: json!({}), data_removed: true, ..ended(Status::Succeeded) };
    assert_snapshot!(document(&removed, None), @r#"
    {
      "id": "01970000-0000-7000-8000-000000000001",
      "model": "bytedance/sdxl-lightning-4step",
      "version": "0000000000000000000000000000000000000000000000000000000000000000",
      "status": "succeeded",
      "input": {},
      "output": null,
      "error": null,
      "error_code": null,
      "logs": "",
      "metrics": {
        "predict_time": 2.0,
        "total_time": 2.123456,
        "cost": 0.00308
      },
      "seeds": [
        41,
        42
      ],
      "safety": null,
      "queue_position": null,
      "eta_seconds": null,
      "created_at": "2026-09-21T14:13:20.000000Z",
      "started_at": "2026-09-21T14:13:20.001000Z",
      "completed_at": "2026-09-21T14:13:22.123456Z",
      "deadline": null,
      "data_removed": true,
      "source": "api",
      "urls": {
        "get": "https://example.com/predictions/01970000-0000-7000-8000-000000000001",
        "cancel": "https://example.com/predictions/01970000-0000-7000-8000-000000000001/cancel"
      }
    }
    "#);
}

#[test]
fn a_prediction_of_a_model_no_longer_in_the_catalog_keeps_its_slug() {
    let orphan = domain::Prediction { model: "gone".into(), ..prediction(Status::Queued) };
    assert!(document(&orphan, None).contains(r#""model": "gone""#));
}

#[test]
fn a_problem() {
    let refusal = Refusal {
        code: crate::wire::RefusalCode::InvalidRequest,
        detail: "input.width: must be a multiple of 8".into(),
        invalid_fields: InvalidInput::one("input.width", "must be a multiple of 8").fields,
    };
    let problem = Problem::new(refusal, "abc".into());
    assert_snapshot!(serde_json::to_string_pretty(&problem).expect("serializable"), @r#"
    {
      "type": "about:blank",
      "title": "Unprocessable Entity",
      "status": 422,
      "detail": "input.width: must be a multiple of 8",
      "code": "invalid_request",
      "invalid_fields": [
        {
          "field": "input.width",
          "reason": "must be a multiple of 8"
        }
      ],
      "request_id": "abc"
    }
    "#);
}

#[test]
fn every_status_has_a_word_that_reads_back() {
    assert!(Status::ALL.into_iter().all(|status| parse_status(status_word(status)) == Some(status)));
    assert_eq!(parse_status("queued"), None);
}

#[test]
fn everything_wrong_with_a_body_is_named_at_once() {
    let body = json!({"model": 5, "version": [], "inptu": {}, "webhook": 5, "input": {}});
    let invalid = CreatePrediction::parse(body).expect_err("invalid");
    let mut names: Vec<_> = invalid.fields.iter().map(|field| field.field.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["inptu", "model", "version", "webhook"]);
    for body in [json!([]), json!(null), json!("text"), json!(1)] {
        assert_eq!(CreatePrediction::parse(body), Err(InvalidInput::one("body", "must be a JSON object")));
    }
}

#[test]
fn null_means_left_out() {
    let nothing = json!({"model": null, "version": null, "input": null, "webhook": null});
    assert_eq!(CreatePrediction::parse(nothing), CreatePrediction::parse(json!({})));
}
