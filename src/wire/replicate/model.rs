//! Models, versions and accounts as Replicate's clients read them.

use chrono::DateTime;
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::super::{FaceUrl, InputSchema, exact::Moment};
use crate::domain;

/// Of the packaging format whose conventions the schema follows. Clients take the arrays of versions before 0.3.9 for
/// streams.
const COG_VERSION: &str = "0.14.0";

/// A model and its latest version.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = replicate::Model)]
pub struct Model<'a> {
    /// Where this document is.
    url: String,
    /// Who lists it.
    owner: &'a str,
    /// Its slug.
    name: &'a str,
    /// A sentence.
    description: &'a str,
    /// Always `public`.
    visibility: &'static str,
    /// Always false.
    is_official: bool,
    /// Always null.
    github_url: Option<String>,
    /// Always null.
    paper_url: Option<String>,
    /// Always null.
    license_url: Option<String>,
    /// Not counted.
    run_count: u64,
    /// Always null.
    cover_image_url: Option<String>,
    /// Always null.
    default_example: Option<String>,
    /// What runs now.
    latest_version: Version<'a>,
}

impl<'a> Model<'a> {
    /// The document of a model, under its first owner.
    pub fn new(model: &'a domain::Model, face: &FaceUrl) -> Self {
        Self {
            url: format!("{face}/models/{}", model.full_name()),
            owner: model.owners.first().map_or("", String::as_str),
            name: &model.slug,
            description: &model.description,
            visibility: "public",
            is_official: false,
            github_url: None,
            paper_url: None,
            license_url: None,
            run_count: 0,
            cover_image_url: None,
            default_example: None,
            latest_version: Version::new(model, &model.version),
        }
    }
}

/// A version of a model: what input it takes.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = replicate::Version)]
pub struct Version<'a> {
    /// A digest.
    id: &'a str,
    /// The start of 1970: when a version was made is not known.
    created_at: Moment,
    /// Of the format of the schema.
    cog_version: &'static str,
    /// Of its input and its output, as an OpenAPI document.
    openapi_schema: Value,
}

impl<'a> Version<'a> {
    /// The document of a model's version under one of its ids.
    pub fn new(model: &domain::Model, id: &'a str) -> Self {
        Self {
            id,
            // The catalog knows what a version is and not since when; clients insist on a time.
            created_at: Moment(DateTime::UNIX_EPOCH),
            cog_version: COG_VERSION,
            openapi_schema: openapi_schema(model),
        }
    }
}

/// The input's schema as Cog packages describe theirs: the document of an API with nothing in it but schemas.
fn openapi_schema(model: &domain::Model) -> Value {
    let mut input = json!(InputSchema::new(&model.limits));
    let mut properties = match input["properties"].take() {
        Value::Object(properties) => properties,
        _ => Map::new(),
    };
    let mut schemas = json!({
        "Output": {"type": "array", "title": "Output", "items": {"type": "string", "format": "uri"}},
        "Status": {
            "type": "string",
            "title": "Status",
            "enum": ["starting", "processing", "succeeded", "canceled", "failed"],
        },
    });
    // Choices are schemas of their own, referred to.
    for (name, property) in &mut properties {
        let Some(choices) = property.get("enum").cloned() else { continue };
        schemas[name] = json!({"type": "string", "title": name, "enum": choices});
        *property = json!({
            "allOf": [{"$ref": format!("#/components/schemas/{name}")}],
            "description": property["description"],
            "default": property["default"],
            "x-order": property["x-order"],
        });
    }
    schemas["Input"] = json!({"type": "object", "title": "Input", "properties": properties});
    json!({
        "openapi": "3.0.2",
        "info": {"title": "Cog", "version": "0.1.0"},
        "paths": {},
        "components": {"schemas": schemas},
    })
}

/// Who is asking.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = replicate::Account)]
pub struct Account {
    /// Always `organization`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The account's name.
    username: String,
    /// The same.
    name: String,
    /// Always null.
    github_url: Option<String>,
}

impl Account {
    /// The document of an account. Several people may share one, by its keys.
    pub fn new(name: String) -> Self {
        Self { kind: "organization", username: name.clone(), name, github_url: None }
    }
}
