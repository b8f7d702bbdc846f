//! Models as Eachlabs' clients read them.

use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{super::InputSchema, DEFAULTS};
use crate::domain;

/// A model and what it takes.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = eachlabs::Model)]
pub struct Model<'a> {
    /// A heading.
    title: &'a str,
    /// The name for requests.
    slug: &'a str,
    /// Of no meaning any more, and always this.
    version: &'static str,
    /// Always `array`.
    output_type: &'static str,
    /// Of the input, as JSON Schema.
    request_schema: Value,
}

impl<'a> Model<'a> {
    /// The document of a model.
    pub fn new(model: &'a domain::Model) -> Self {
        let mut properties = json!(InputSchema::new(&model.limits))["properties"].take();
        for (name, default) in [
            ("prompt", json!(DEFAULTS.prompt)),
            ("negative_prompt", json!(DEFAULTS.negative_prompt)),
            ("disable_safety_checker", json!(DEFAULTS.disable_safety_checker)),
        ] {
            properties[name]["default"] = default;
        }
        Self {
            title: &model.title,
            slug: &model.slug,
            version: "0.0.1",
            output_type: "array",
            // Closed to no field: those nobody knows are ignored.
            request_schema: json!({"type": "object", "required": [], "properties": properties}),
        }
    }
}
