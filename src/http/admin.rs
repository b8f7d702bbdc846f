//! Keys and accounts over HTTP, for keys with the scope `admin`. What the command line does, `fourstep keys` and `fourstep
//! accounts`, for programs.

use axum::{
    Json,
    extract::{FromRequestParts, Path, State},
    http::{
        HeaderValue, StatusCode,
        header::{CACHE_CONTROL, HeaderName},
        request::Parts,
    },
    response::{IntoResponse, Response},
};

use super::{Api, Error, caller::Operator, extract::JsonBody};
use crate::{
    domain::ApiKey,
    service,
    wire::admin::{self, Account, AccountChange, Key, NewAccount, Page, Secret},
};

/// Secrets and balances are for no cache.
const UNCACHED: [(HeaderName, HeaderValue); 1] = [(CACHE_CONTROL, HeaderValue::from_static("no-store"))];

/// A key in the URL: as a list shows it, `fs_1a2b3c4d`, or without the prefix.
pub(super) struct Lookup(String);

impl FromRequestParts<Api> for Lookup {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Error> {
        let key = Path::<String>::from_request_parts(parts, api).await.map(|Path(key)| key).unwrap_or_default();
        let lookup = key.strip_prefix("fs_").unwrap_or(&key);
        let is_one = lookup.len() == 8 && lookup.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if is_one { Ok(Self(lookup.to_owned())) } else { Err(service::Error::NotFound.into()) }
    }
}

/// An account in the URL. The database cannot be asked for one with a NUL.
pub(super) struct AccountName(String);

impl FromRequestParts<Api> for AccountName {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Error> {
        let name = Path::<String>::from_request_parts(parts, api).await.ok().map(|Path(name)| name);
        let name = name.filter(|name| !name.contains('\0'));
        Ok(Self(name.ok_or(Error::Service(service::Error::NotFound))?))
    }
}

/// `GET /admin/keys`
#[utoipa::path(
    get,
    path = "/admin/keys",
    summary = "List the API keys",
    tag = "Admin",
    responses(
        (status = 200, description = "Every key, without its secret.", body = admin::Page<admin::Key>),
    ),
    security(("key" = ["admin"])),
)]
pub(super) async fn list_keys(State(api): State<Api>, _: Operator) -> Result<Response, Error> {
    let keys = api.service.list_keys().await?;
    Ok((UNCACHED, Json(Page { results: keys.iter().map(Key::new).collect() })).into_response())
}

/// `POST /admin/keys`: the answer has the secret, this once.
#[utoipa::path(
    post,
    path = "/admin/keys",
    summary = "Create an API key",
    tag = "Admin",
    request_body = admin::body::NewKey,
    responses(
        (status = 201, description = "The key, with its secret, this once.", body = admin::Secret),
    ),
    security(("key" = ["admin"])),
)]
pub(super) async fn create_key(
    State(api): State<Api>,
    _: Operator,
    JsonBody(body): JsonBody,
) -> Result<Response, Error> {
    Ok(secret(&api.service.issue_key(&admin::new_key(body)?).await?))
}

/// `DELETE /admin/keys/{key}`
#[utoipa::path(
    delete,
    path = "/admin/keys/{key}",
    summary = "Revoke an API key",
    tag = "Admin",
    params(
        ("key" = String, Path, description = "As the list shows it, `fs_1a2b3c4d`."),
    ),
    responses(
        (status = 204, description = "The key is revoked; it opens nothing any more."),
    ),
    security(("key" = ["admin"])),
)]
pub(super) async fn revoke_key(
    State(api): State<Api>,
    _: Operator,
    Lookup(lookup): Lookup,
) -> Result<StatusCode, Error> {
    api.service.revoke_key(&lookup).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /admin/keys/{key}/rotate`: the answer has the new secret, this once.
#[utoipa::path(
    post,
    path = "/admin/keys/{key}/rotate",
    summary = "Replace an API key's secret",
    tag = "Admin",
    params(
        ("key" = String, Path, description = "As the list shows it, `fs_1a2b3c4d`."),
    ),
    request_body = admin::body::Rotation,
    responses(
        (status = 201, description = "The key, with its new secret, this once.", body = admin::Secret),
    ),
    security(("key" = ["admin"])),
)]
pub(super) async fn rotate_key(
    State(api): State<Api>,
    _: Operator,
    Lookup(lookup): Lookup,
    JsonBody(body): JsonBody,
) -> Result<Response, Error> {
    Ok(secret(&api.service.rotate_key(&lookup, admin::overlap(body)?).await?))
}

/// `PUT /admin/keys/{key}/budget`
#[utoipa::path(
    put,
    path = "/admin/keys/{key}/budget",
    summary = "Set what an API key may spend",
    tag = "Admin",
    params(
        ("key" = String, Path, description = "As the list shows it, `fs_1a2b3c4d`."),
    ),
    request_body = admin::body::KeyBudget,
    responses(
        (status = 204, description = "The budget is set."),
    ),
    security(("key" = ["admin"])),
)]
pub(super) async fn set_budget(
    State(api): State<Api>,
    _: Operator,
    Lookup(lookup): Lookup,
    JsonBody(body): JsonBody,
) -> Result<StatusCode, Error> {
    api.service.set_budget(&lookup, admin::budget(body)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /admin/accounts`
#[utoipa::path(
    get,
    path = "/admin/accounts",
    summary = "List the accounts",
    tag = "Admin",
    responses(
        (status = 200, description = "Every account.", body = admin::Page<admin::Account>),
    ),
    security(("key" = ["admin"])),
)]
pub(super) async fn list_accounts(State(api): State<Api>, _: Operator) -> Result<Response, Error> {
    let accounts = api.service.list_accounts().await?;
    Ok((UNCACHED, Json(Page { results: accounts.iter().map(Account::new).collect() })).into_response())
}

/// `POST /admin/accounts`
#[utoipa::path(
    post,
    path = "/admin/accounts",
    summary = "Create an account",
    tag = "Admin",
    request_body = admin::body::NewAccount,
    responses(
        (status = 201, description = "The account is made."),
        (status = 422, description = "Something in it is at fault, or there is one of this name."),
    ),
    security(("key" = ["admin"])),
)]
pub(super) async fn create_account(
    State(api): State<Api>,
    _: Operator,
    JsonBody(body): JsonBody,
) -> Result<StatusCode, Error> {
    let NewAccount { name, mode, max_in_flight } = NewAccount::parse(body)?;
    api.service.create_account(&name, mode, max_in_flight).await?;
    Ok(StatusCode::CREATED)
}

/// `PATCH /admin/accounts/{name}`
#[utoipa::path(
    patch,
    path = "/admin/accounts/{name}",
    summary = "Change an account",
    tag = "Admin",
    params(
        ("name" = String, Path, description = "The account's name."),
    ),
    request_body = admin::body::AccountChange,
    responses(
        (status = 204, description = "What the body names is set."),
    ),
    security(("key" = ["admin"])),
)]
pub(super) async fn change_account(
    State(api): State<Api>,
    _: Operator,
    AccountName(name): AccountName,
    JsonBody(body): JsonBody,
) -> Result<StatusCode, Error> {
    let AccountChange { mode, max_in_flight } = AccountChange::parse(body)?;
    api.service.change_account(&name, mode, max_in_flight).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /admin/accounts/{name}/credits`
#[utoipa::path(
    post,
    path = "/admin/accounts/{name}/credits",
    summary = "Add to an account's balance",
    tag = "Admin",
    params(
        ("name" = String, Path, description = "The account's name."),
    ),
    request_body = admin::body::Credit,
    responses(
        (status = 204, description = "The amount is credited."),
    ),
    security(("key" = ["admin"])),
)]
pub(super) async fn credit(
    State(api): State<Api>,
    _: Operator,
    AccountName(name): AccountName,
    JsonBody(body): JsonBody,
) -> Result<StatusCode, Error> {
    let (amount, note) = admin::credit(body)?;
    api.service.credit(&name, amount, note.as_deref()).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn secret(key: &ApiKey) -> Response {
    (StatusCode::CREATED, UNCACHED, Json(Secret::new(key))).into_response()
}
