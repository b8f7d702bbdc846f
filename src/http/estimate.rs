//! `POST /estimate`: what a create would take.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};

use super::{Api, Error, caller::Writer, extract::JsonBody, native::create_request};
use crate::{
    service::{self, Basis},
    wire::{
        BaseUrl,
        native::{self, CreatePrediction},
    },
};

/// Takes the body of a create, and makes nothing.
#[utoipa::path(
    post,
    path = "/estimate",
    summary = "Estimate what a prediction would take and cost",
    tag = "Predictions",
    request_body = native::body::CreatePrediction,
    responses(
        (status = 200, description = "What a create with this body would take. Nothing is made.", body = native::Estimate),
    ),
    security(("key" = ["predictions:write"])),
)]
pub(super) async fn estimate(
    State(api): State<Api>,
    _: Writer,
    base: BaseUrl,
    JsonBody(body): JsonBody,
) -> Result<Response, Error> {
    let service::Estimate { model, device_time, queue_time, cost, basis } =
        api.service.estimate(&create_request(CreatePrediction::parse(body)?, &base)).await?;
    let model = api.service.catalog().by_slug(&model).ok_or(service::Error::NotFound)?;
    let based_on = match basis {
        Basis::Measured => "measured",
        Basis::Scaled => "scaled",
        Basis::Catalog => "catalog",
    };
    Ok(Json(native::Estimate::new(model, (device_time, queue_time), cost, based_on)).into_response())
}
