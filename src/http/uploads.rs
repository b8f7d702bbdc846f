//! Uploads on every face: sent in a form or as they are, or announced first and sent to a URL of their own.

use axum::{
    Extension, Json,
    extract::{FromRequest, FromRequestParts, Request, State},
    http::{HeaderMap, Method, StatusCode, header::LOCATION, request::Parts},
    response::{IntoResponse, Response},
};

use super::{
    Api, Error,
    caller::{Reader, Writer},
    extract::{self, JsonBody, Rest, Several},
    face::Face,
    files,
    form::{self, Form},
    query::Parameters,
};
use crate::{
    domain::{Dialect, InvalidField, InvalidInput, NewFile, Upload, UploadId},
    service::{self, shared_files::SignedLink},
    wire::{
        BaseUrl, FaceUrl,
        eachlabs::{self, Presign, Presigned},
        native::{self, Page},
        replicate,
    },
};

/// What is said of an expiry that is none.
const EXPIRY: &str = "must be a time in seconds since 1970";

/// `POST /files` of the native face.
#[utoipa::path(
    post,
    path = "/files",
    summary = "Upload a picture to start from",
    operation_id = "send",
    tag = "Files",
    request_body(content((native::body::UploadForm = "multipart/form-data"), (native::body::Picture = "application/octet-stream"))),
    responses(
        (status = 201, description = "The upload.", body = native::File),
    ),
    security(("key" = ["predictions:write"])),
)]
pub(super) async fn create(
    State(api): State<Api>,
    Writer(caller): Writer,
    base: BaseUrl,
    NativeFile(file): NativeFile,
) -> Result<Response, Error> {
    let upload = api.service.upload(caller, file).await?;
    let location = [(LOCATION, base.file(&upload.key))];
    Ok((StatusCode::CREATED, location, Json(native::File::new(&upload, &base))).into_response())
}

/// `GET /files` of the native face: the latest hundred.
#[utoipa::path(
    get,
    path = "/files",
    summary = "List your uploads",
    operation_id = "list",
    tag = "Files",
    responses(
        (status = 200, description = "Your latest hundred uploads.", body = Page<native::File>),
    ),
    security(("key" = ["predictions:read"])),
)]
pub(super) async fn list(State(api): State<Api>, Reader(caller): Reader, base: BaseUrl) -> Result<Response, Error> {
    let uploads = api.service.list_uploads(caller).await?;
    let results: Vec<_> = uploads.iter().map(|upload| native::File::new(upload, &base)).collect();
    Ok(Json(Page { results, next: None }).into_response())
}

/// `DELETE /files/{id}` of the native face.
#[utoipa::path(
    delete,
    path = "/files/{key}",
    summary = "Delete an upload",
    operation_id = "delete",
    tag = "Files",
    params(
        ("key" = uuid::Uuid, Path, description = "The upload's id."),
    ),
    responses(
        (status = 204, description = "The upload is deleted."),
    ),
    security(("key" = ["predictions:write"])),
)]
pub(super) async fn delete(
    State(api): State<Api>,
    Writer(caller): Writer,
    Rest(id): Rest,
) -> Result<StatusCode, Error> {
    api.service.delete_upload(caller, known(&id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /files` of Replicate's face.
#[utoipa::path(
    post,
    path = "/files",
    summary = "Upload a file",
    operation_id = "create_file",
    tag = "Replicate",
    request_body(content = replicate::body::UploadForm, content_type = "multipart/form-data"),
    responses(
        (status = 201, description = "The upload.", body = replicate::File),
    ),
    security(("key" = ["predictions:write"])),
)]
pub(super) async fn create_of_replicate(
    State(api): State<Api>,
    Writer(caller): Writer,
    face: FaceUrl,
    Form(parts): Form,
) -> Result<Response, Error> {
    let upload = api.service.upload(caller, replicate::new_file(parts)?).await?;
    Ok((StatusCode::CREATED, Json(replicate::File::new(&upload, &face))).into_response())
}

/// `GET /files` of Replicate's face: the latest hundred.
#[utoipa::path(
    get,
    path = "/files",
    summary = "List your uploaded files",
    operation_id = "list_files",
    tag = "Replicate",
    responses(
        (status = 200, description = "Your latest hundred uploads.", body = replicate::Page<replicate::File>),
    ),
    security(("key" = ["predictions:read"])),
)]
pub(super) async fn list_of_replicate(
    State(api): State<Api>,
    Reader(caller): Reader,
    face: FaceUrl,
) -> Result<Response, Error> {
    let uploads = api.service.list_uploads(caller).await?;
    let files = uploads.iter().map(|upload| replicate::File::new(upload, &face)).collect();
    Ok(Json(replicate::Page::new(files, None)).into_response())
}

/// `GET /files/{id}` of Replicate's face.
#[utoipa::path(
    get,
    path = "/files/{id}",
    summary = "Get an uploaded file",
    operation_id = "get_file",
    tag = "Replicate",
    params(
        ("id" = uuid::Uuid, Path, description = "The upload's id."),
    ),
    responses(
        (status = 200, description = "The upload.", body = replicate::File),
    ),
    security(("key" = ["predictions:read"])),
)]
pub(super) async fn get_of_replicate(
    State(api): State<Api>,
    Reader(caller): Reader,
    Rest(id): Rest,
    face: FaceUrl,
) -> Result<Response, Error> {
    let upload: Upload = api.service.find_upload(caller, known(&id)?).await?;
    Ok(Json(replicate::File::new(&upload, &face)).into_response())
}

/// `GET /files/{id}/download` of Replicate's face: for whoever has a link that the file's owner has signed.
#[utoipa::path(
    get,
    path = "/files/{id}/download",
    summary = "Read a file by a signed link",
    description = "`signature` is the HMAC-SHA256 of `{owner} {id} {expiry}` in base64, made with the owner's signing secret: the one of `/webhooks/default/secret`, whose bytes are in base64 after `whsec_`. No key is needed.",
    operation_id = "download_file",
    tag = "Replicate",
    params(
        ("id" = uuid::Uuid, Path, description = "The upload's id."),
        ("owner" = String, Query, description = "The name of the account that has it."),
        ("expiry" = i64, Query, description = "Until when the link is good, in seconds since 1970."),
        ("signature" = String, Query, description = "The owner's, in base64."),
        ("Range" = Option<String>, Header, description = "`bytes=0-99`."),
        ("If-None-Match" = Option<String>, Header, description = "The ETag of an earlier answer."),
    ),
    responses(
        (status = 200, description = "The file.", content((Vec<u8> = "image/png"), (Vec<u8> = "image/jpeg"), (Vec<u8> = "image/webp"))),
        (status = 206, description = "A part of it.", content((Vec<u8> = "image/png"), (Vec<u8> = "image/jpeg"), (Vec<u8> = "image/webp"))),
        (status = 304, description = "Not modified."),
        (status = 403, description = "The signature is not the owner's, or the link has expired."),
        (status = 416, description = "It has no such part."),
    ),
)]
pub(super) async fn download_of_replicate(
    State(api): State<Api>,
    Link(link): Link,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let upload = api.service.find_shared_upload(&link).await?;
    // A kept copy must not outlast the link.
    files::send(&api, &upload.key, &method, &headers, "private, no-cache").await
}

/// `DELETE /files/{id}` of the vendors' faces. Eachlabs' clients are told that it is gone in any case.
#[utoipa::path(
    delete,
    path = "/files/{id}",
    summary = "Delete an uploaded file",
    operation_id = "delete_file",
    tag = "Files",
    params(
        ("id" = uuid::Uuid, Path, description = "The upload's id."),
    ),
    responses(
        (status = 204, description = "The upload is deleted."),
    ),
    security(("key" = ["predictions:write"])),
)]
pub(super) async fn delete_of_vendor(
    State(api): State<Api>,
    Writer(caller): Writer,
    Extension(face): Extension<Face>,
    Rest(id): Rest,
) -> Result<StatusCode, Error> {
    let deleted = match (face.dialect(), id.parse()) {
        (Dialect::Eachlabs, Err(_)) => return Err(InvalidInput::one("id", "must be a UUID").into()),
        (_, Err(_)) => return Err(service::Error::NoFile.into()),
        (_, Ok(id)) => api.service.delete_upload(caller, id).await,
    };
    match deleted {
        Err(service::Error::NoFile) if face.dialect() == Dialect::Eachlabs => Ok(StatusCode::NO_CONTENT),
        deleted => Ok(deleted.map(|()| StatusCode::NO_CONTENT)?),
    }
}

/// `POST /upload/presign` of Eachlabs' face.
#[utoipa::path(
    post,
    path = "/upload/presign",
    summary = "Announce a file to upload",
    operation_id = "presign",
    tag = "Eachlabs",
    request_body = eachlabs::body::Presign,
    responses(
        (status = 200, description = "Where to send the bytes, and where they can be read then.", body = eachlabs::Presigned),
    ),
    security(("key" = ["predictions:write"])),
)]
pub(super) async fn presign(
    State(api): State<Api>,
    Writer(caller): Writer,
    face: FaceUrl,
    JsonBody(body): JsonBody,
) -> Result<Response, Error> {
    let Presign { content_type, keep } = Presign::parse(body)?;
    let announced = api.service.announce_upload(caller, &content_type, keep).await?;
    Ok(Json(Presigned::new(&announced.upload, &announced.ticket, &face)).into_response())
}

/// `PUT /upload/{id}/{ticket}`: the bytes of an announced upload. Whoever knows the URL may send them, once.
#[utoipa::path(
    put,
    path = "/upload/{id}/{ticket}",
    summary = "Upload the bytes of an announced file",
    operation_id = "receive",
    tag = "Eachlabs",
    params(
        ("id" = uuid::Uuid, Path, description = "The upload's id."),
        ("ticket" = String, Path, description = "What permits to send its bytes, from its URL."),
    ),
    request_body(content = native::body::Picture, content_type = "application/octet-stream"),
    responses(
        (status = 200, description = "It has arrived."),
        (status = 409, description = "Another request is sending its bytes; `Retry-After` says when to come back."),
    ),
)]
pub(super) async fn receive(
    State(api): State<Api>,
    Several((id, ticket)): Several<(String, String)>,
    request: Request,
) -> Result<StatusCode, Error> {
    let id = known(&id)?;
    // Nothing is read for whoever has no ticket, or while another has begun.
    let turn = api.service.begin_receiving(id, &ticket).await?;
    let bytes = read(request, &api).await?;
    api.service.receive_upload(&turn, &ticket, bytes).await?;
    Ok(StatusCode::OK)
}

/// A signed link to a file.
pub(super) struct Link(SignedLink);

impl FromRequestParts<Api> for Link {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Error> {
        let Rest(id) = Rest::from_request_parts(parts, api).await?;
        let id = known(&id)?;
        let parameters = Parameters::read(parts, &["owner", "expiry", "signature"])?;
        let mut invalid = Vec::new();
        let mut get = |field: &str, reason: &str| {
            let value = parameters.get(field).filter(|value| !value.is_empty() && !value.contains('\0'));
            if value.is_none() {
                invalid.push(InvalidField { field: field.to_owned(), reason: reason.to_owned() });
            }
            value.unwrap_or_default().to_owned()
        };
        let owner = get("owner", "must be the name of the account that has the file");
        let expiry = get("expiry", EXPIRY);
        // A plus that was not escaped has become a space.
        let signature = get("signature", "must be the owner's signature in base64").replace(' ', "+");
        if !invalid.is_empty() {
            return Err(InvalidInput { fields: invalid }.into());
        }
        let expiry = expiry.parse().map_err(|_| InvalidInput::one("expiry", EXPIRY))?;
        Ok(Self(SignedLink { id, owner, expiry, signature }))
    }
}

/// A file in a form, or a body that is nothing else.
pub(super) struct NativeFile(NewFile);

impl FromRequest<Api> for NativeFile {
    type Rejection = Error;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Error> {
        if form::is_form(&request) {
            let Form(parts) = Form::from_request(request, api).await?;
            return Ok(Self(native::new_file(parts)?));
        }
        let bytes = read(request, api).await?;
        Ok(Self(NewFile { field: "body", name: None, metadata: serde_json::Map::new(), bytes }))
    }
}

async fn read(request: Request, api: &Api) -> Result<Vec<u8>, Error> {
    let limit = api.settings.body_limit;
    extract::check_length(request.headers(), limit)?;
    api.bodies.read(request.into_body(), limit).await
}

/// What is no id is no file's.
fn known(id: &str) -> Result<UploadId, Error> {
    id.parse().map_err(|_| service::Error::NoFile.into())
}
