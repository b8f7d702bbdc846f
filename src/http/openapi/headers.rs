//! Headers of answers: what each says, and which answers have it.

use serde_json::{Value, json};

const NATIVE_CREATES: &[&str] = &["predictions_create", "predictions_create_with_id"];
const OPENAI: &[&str] = &["openai_generate", "openai_edit"];
/// Every create.
const CREATES: [&str; 8] = [
    "predictions_create",
    "predictions_create_with_id",
    "replicate_create",
    "replicate_create_of_model",
    "eachlabs_create",
    "eachlabs_run",
    "openai_generate",
    "openai_edit",
];
/// Every operation.
const ALL: &[&str] = &[];

/// A header, and where it is.
struct Header {
    name: &'static str,
    words: &'static str,
    /// Of JSON Schema.
    kind: &'static str,
    /// Operations, the statuses of their answers that have it, and whether each such answer has.
    answers: &'static [(&'static [&'static str], &'static [&'static str], bool)],
}

const HEADERS: [Header; 9] = [
    Header {
        name: "Retry-After",
        words: "Seconds after which to come back. Not there where another try would be another prediction.",
        kind: "integer",
        answers: &[(ALL, &["429", "503"], false), (&["eachlabs_receive"], &["409"], true)],
    },
    Header {
        name: "x-should-retry",
        words: "`false`: another try would be another prediction, or as vain as this one.",
        kind: "string",
        answers: &[
            (OPENAI, &["400", "409", "500", "503"], false),
            (&["predictions_create_with_id"], &["409"], true),
            (&["openai_vary"], &["501"], true),
        ],
    },
    Header {
        name: "Location",
        words: "Where it can be read.",
        kind: "string",
        answers: &[
            (NATIVE_CREATES, &["200", "201", "202"], true),
            (&["replicate_create", "replicate_create_of_model"], &["201", "202"], true),
            (&["files_send"], &["201"], true),
        ],
    },
    Header {
        name: "Idempotent-Replayed",
        words: "`true`: an earlier request with the same id or key made it.",
        kind: "string",
        answers: &[(&CREATES, &["200", "201", "202", "408", "409", "503"], false)],
    },
    Header {
        name: "ETag",
        words: "Of what is answered; with it in `If-None-Match` the same is answered with 304.",
        kind: "string",
        answers: &[
            (&["predictions_get", "server_serve", "server_page"], &["200", "304"], true),
            (&["server_get", "replicate_download_file"], &["200", "206", "304"], true),
            // Of the page.
            (&["server_discover"], &["200"], false),
            (&["server_discover"], &["304"], true),
        ],
    },
    Header {
        name: "Fourstep-Model",
        words: "What draws it, which may stand in for the model that was asked for.",
        kind: "string",
        answers: &[(NATIVE_CREATES, &["200", "201", "202"], true), (&["predictions_get"], &["200", "304"], true)],
    },
    Header {
        name: "Fourstep-Prediction-Id",
        words: "The prediction's id; on the native face, where the answer is the picture.",
        kind: "string",
        answers: &[
            (NATIVE_CREATES, &["200", "201"], false),
            (OPENAI, &["200"], true),
            (OPENAI, &["400", "409", "500", "503"], false),
        ],
    },
    Header {
        name: "Fourstep-Seed",
        words: "The seed of the first picture; where `Fourstep-Prediction-Id` is.",
        kind: "integer",
        answers: &[
            (NATIVE_CREATES, &["200", "201"], false),
            (OPENAI, &["200"], true),
            (OPENAI, &["400", "409", "500", "503"], false),
        ],
    },
    Header {
        name: "Fourstep-Cost-USD",
        words: "What it cost, once it has ended; where `Fourstep-Prediction-Id` is.",
        kind: "number",
        answers: &[(NATIVE_CREATES, &["200", "201"], false), (OPENAI, &["200", "400", "409", "500"], false)],
    },
];

/// Puts into an operation's answers the headers they have.
pub(super) fn put(operation: &mut Value) {
    let name = operation["operationId"].as_str().unwrap_or_default().to_owned();
    for (status, response) in operation["responses"].as_object_mut().into_iter().flatten() {
        for Header { name: header, words, kind, answers } in &HEADERS {
            let has_it = answers.iter().find(|(operations, statuses, _)| {
                (operations.is_empty() || operations.contains(&name.as_str())) && statuses.contains(&status.as_str())
            });
            if let Some((.., is_always)) = has_it {
                let described = json!({"description": words, "required": is_always, "schema": {"type": kind}});
                response["headers"][*header] = described;
            }
        }
    }
}
