//! What bodies may say, for documentation: they are read field by field, and tests hold these to what is read.

use utoipa::{ToSchema, openapi::Ref};

/// The input's schema is the model's, and comes from the catalog.
pub(in crate::wire) fn input() -> Ref {
    Ref::from_schema_name("Input")
}

/// A prediction to be made.
#[derive(ToSchema)]
#[schema(as = native::CreatePrediction)]
#[expect(dead_code, reason = "it is read field by field")]
pub struct CreatePrediction {
    /// By any of its names; the first of the list if left out.
    model: Option<String>,
    /// A version of it.
    version: Option<String>,
    #[schema(schema_with = input)]
    input: (),
    /// Where to tell what becomes of it.
    webhook: Option<String>,
    /// Of what to tell: some of `start`, `output`, `logs`, `completed`.
    webhook_events_filter: Option<Vec<String>>,
    /// What signs it, instead of the account's secret.
    webhook_secret: Option<String>,
    /// Those with a smaller number are run first; others have 0. For operators.
    #[schema(minimum = -100, maximum = 100)]
    priority: Option<i16>,
}
