//! Models as OpenAI's clients list them.

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain;

/// A model's name.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = openai::Model)]
pub struct Model<'a> {
    /// The name for requests.
    id: &'a str,
    /// Always `model`.
    object: &'static str,
    /// The catalog knows what a model is and not since when; clients insist on a time.
    created: i64,
    /// Who lists it.
    owned_by: &'a str,
}

impl<'a> Model<'a> {
    /// The document of a model.
    pub fn new(model: &'a domain::Model) -> Self {
        let owned_by = model.owners.first().map_or("", String::as_str);
        Self { id: &model.slug, object: "model", created: 0, owned_by }
    }
}

/// All there is to choose from.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = openai::Models)]
pub struct Models<'a> {
    /// Always `list`.
    object: &'static str,
    /// All of them.
    data: Vec<Model<'a>>,
}

impl<'a> Models<'a> {
    /// The list of these.
    pub fn new(models: &'a [domain::Model]) -> Self {
        Self { object: "list", data: models.iter().map(Model::new).collect() }
    }
}
