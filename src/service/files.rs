//! Uploads: files sent ahead to start predictions from, and any file of this server that an input names.
//!
//! A picture is checked when it arrives and not when it is used, so that whoever sends it learns what is wrong with it. What
//! names a file of ours is found here and never fetched: a caller's own upload or output, and nobody else's.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use md5::Md5;
use serde_json::Map;
use sha2::{Digest, Sha256};

use super::{Error, PredictionService, Result, Shared, complete, internal};
use crate::{
    artifacts::Artifacts,
    domain::{Caller, InvalidInput, NewFile, NewUpload, OwnFile, Upload, UploadId},
    picture,
    store::{Room, Writing},
};

/// How long the bytes of an announced upload may be sent.
pub const TICKET_VALID: Duration = Duration::from_secs(15 * 60);
/// Uploads in a list.
const LISTED: u32 = 100;
/// Of a file's name, characters.
const LONGEST_NAME: usize = 255;
/// Of an upload's metadata, bytes of JSON.
const MOST_METADATA: usize = 16 << 10;

/// How much is kept for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadLimits {
    /// How long an upload is kept.
    pub keep: Duration,
    /// Bytes that all uploads of an account may have together.
    pub quota: u64,
}

/// An upload that was announced, with what permits to send its bytes.
#[derive(Clone, Debug)]
pub struct Announced {
    /// The upload, still empty.
    pub upload: Upload,
    /// To be kept secret; good for [`TICKET_VALID`].
    pub ticket: String,
}

/// Uploads whose bytes are being sent to this process.
pub(super) type AllReceiving = Arc<Mutex<HashSet<UploadId>>>;

/// The turn to send the bytes of an upload. Given up on drop.
#[derive(Debug)]
pub struct Receiving {
    id: UploadId,
    all: AllReceiving,
}

impl Receiving {
    /// `None` while another has it.
    fn begin(all: &AllReceiving, id: UploadId) -> Option<Self> {
        let is_first = all.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        is_first.then(|| Self { id, all: Arc::clone(all) })
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

impl PredictionService {
    /// Stores a picture that predictions can start from.
    pub async fn upload(&self, caller: Caller, file: NewFile) -> Result<Upload> {
        if serde_json::to_string(&file.metadata).is_ok_and(|json| json.len() > MOST_METADATA) {
            let reason = format!("must be at most {MOST_METADATA} bytes long");
            return Err(InvalidInput::one("metadata", reason).into());
        }
        let field = file.field;
        let refuse = |reason: picture::Unreadable| InvalidInput::one(field, reason.to_string());
        let content_type = picture::media_type(&file.bytes).map_err(refuse)?;
        let (_, bytes) = self.shared.check_picture(caller.account_id, file.bytes).await?.map_err(refuse)?;
        let name = file.name.as_deref().map(shown_name).filter(|name| !name.is_empty());
        let new = self.new_upload(caller, content_type, None, self.shared.uploads.keep)?;
        let new = NewUpload { metadata: file.metadata, name: name.unwrap_or(new.name), ..new };
        let service = self.clone();
        complete(async move {
            let upload = service.shared.store.begin_upload(&new).await?;
            let stored = service.store_upload(&upload, bytes).await;
            if stored.is_err() {
                // Whoever sends it again begins another.
                let _ = service.delete_upload(caller, upload.id).await;
            }
            stored
        })
        .await
    }

    /// Announces an upload whose bytes come later, from whoever holds its ticket.
    pub async fn announce_upload(
        &self,
        caller: Caller,
        content_type: &str,
        keep: Option<Duration>,
    ) -> Result<Announced> {
        let content_type = picture::MEDIA_TYPES.into_iter().find(|known| *known == content_type);
        let must = || InvalidInput::one("content_type", format!("must be one of {}", picture::MEDIA_TYPES.join(", ")));
        let content_type = content_type.ok_or_else(must)?;
        let ticket = Artifacts::unguessable().map_err(internal)?;
        let longest = self.shared.uploads.keep;
        let keep = keep.unwrap_or(longest).min(longest);
        let new = self.new_upload(caller, content_type, Some(&ticket), keep)?;
        let upload = self.shared.store.begin_upload(&new).await?;
        Ok(Announced { upload, ticket })
    }

    /// The announced upload whose bytes the holder of this ticket may send.
    async fn find_announced(&self, id: UploadId, ticket: &str) -> Result<Upload> {
        self.shared.store.find_announced(id, hash_of(ticket), TICKET_VALID).await?.ok_or(Error::NoFile)
    }

    /// Lets whoever holds this ticket send the bytes of an announced upload to this process, one at a time.
    pub async fn begin_receiving(&self, id: UploadId, ticket: &str) -> Result<Receiving> {
        let place = self.shared.strangers.take().await?;
        self.find_announced(id, ticket).await?;
        drop(place);
        Receiving::begin(&self.shared.receiving, id).ok_or(Error::BeingStored)
    }

    /// Takes the bytes of an announced upload. A file of another kind than was announced is refused: its URL is known
    /// already, and what is read there is what it says.
    pub async fn receive_upload(&self, turn: &Receiving, ticket: &str, bytes: Vec<u8>) -> Result<Upload> {
        // Looked up afresh: sending them may have taken a minute.
        let upload = self.find_announced(turn.id, ticket).await?;
        let refuse = |reason: String| InvalidInput::one("body", reason);
        let content_type = picture::media_type(&bytes).map_err(|reason| refuse(reason.to_string()))?;
        if content_type != upload.content_type {
            return Err(refuse(format!("must be {}, as was announced, not {content_type}", upload.content_type)).into());
        }
        let checked = self.shared.check_picture(upload.account_id, bytes).await?;
        let (_, bytes) = checked.map_err(|reason| refuse(reason.to_string()))?;
        let service = self.clone();
        complete(async move { service.store_upload(&upload, bytes).await }).await
    }

    /// The caller's upload.
    pub async fn find_upload(&self, caller: Caller, id: UploadId) -> Result<Upload> {
        self.shared.store.find_upload(caller.account_id, id).await?.ok_or(Error::NoFile)
    }

    /// The caller's latest uploads, newest first.
    pub async fn list_uploads(&self, caller: Caller) -> Result<Vec<Upload>> {
        Ok(self.shared.store.list_uploads(caller.account_id, LISTED).await?)
    }

    /// Deletes an upload. Predictions made from it keep a copy of their own.
    pub async fn delete_upload(&self, caller: Caller, id: UploadId) -> Result<()> {
        let service = self.clone();
        complete(async move {
            let key = service.shared.store.delete_upload(caller.account_id, id).await?.ok_or(Error::NoFile)?;
            // Should this fail, the sweep of files without a row finds it.
            service.shared.artifacts.delete(vec![key]).await;
            Ok(())
        })
        .await
    }

    fn new_upload(
        &self,
        caller: Caller,
        content_type: &'static str,
        ticket: Option<&str>,
        keep: Duration,
    ) -> Result<NewUpload> {
        let id = UploadId::generate();
        let extension = picture::extension(content_type);
        let key = Artifacts::upload_key(id, extension).map_err(internal)?;
        Ok(NewUpload {
            id,
            account_id: caller.account_id,
            name: format!("picture.{extension}"),
            content_type,
            metadata: Map::new(),
            key,
            ticket: ticket.map(hash_of),
            keep,
        })
    }

    /// Counts, stores and finishes, in this order: what stops in between is known to the sweep.
    async fn store_upload(&self, upload: &Upload, bytes: Vec<u8>) -> Result<Upload> {
        let Shared { store, artifacts, uploads, .. } = &*self.shared;
        let writing = match store.make_room(upload.id, bytes.len() as u64, uploads.quota).await? {
            Room::Made(writing) => writing,
            Room::Full => return Err(Error::StorageFull { quota: uploads.quota }),
            Room::Taken => return Err(Error::BeingStored),
            Room::Gone => return Err(Error::NoFile),
        };
        match self.write_upload(upload, writing, bytes).await {
            Ok(Some(upload)) => Ok(upload),
            Ok(None) => {
                // Deleted before its bytes were there to be deleted with it. Nobody else's are in this place then.
                let left = store.unused_files(std::slice::from_ref(&upload.key)).await?;
                artifacts.delete(left).await;
                Err(Error::NoFile)
            }
            Err(error) => {
                // Should this fail as well, whoever sends them again has to wait for a while.
                let _ = store.give_up_writing(upload.id, writing).await;
                Err(error)
            }
        }
    }

    async fn write_upload(&self, upload: &Upload, writing: Writing, bytes: Vec<u8>) -> Result<Option<Upload>> {
        let (sha256, md5) = (Sha256::digest(&bytes).into(), Md5::digest(&bytes).into());
        self.shared.artifacts.put(&upload.key, bytes).await?;
        Ok(self.shared.store.finish_upload(upload.id, writing, sha256, md5).await?)
    }
}

impl Shared {
    /// The bytes of a file of this server that an input names; `None` if it names none. The error says why a file that
    /// can only be ours cannot be used.
    pub(super) async fn own_file(&self, account_id: i64, text: &str) -> Result<Option<Result<Vec<u8>, String>>> {
        let Some(file) = OwnFile::named_by(text) else { return Ok(None) };
        let key = match file {
            OwnFile::Upload(id) | OwnFile::PerhapsUpload(id) | OwnFile::UploadAt(id, _) => {
                self.store.find_upload(account_id, id).await?.map(|upload| upload.key)
            }
            OwnFile::OutputAt(id, key) => {
                let prediction = self.store.get(account_id, id).await?;
                let outputs = prediction.and_then(|prediction| prediction.output).unwrap_or_default();
                outputs.into_iter().find(|output| output.key == key).map(|output| output.key)
            }
        };
        let key = key.filter(|key| match file {
            OwnFile::UploadAt(_, named) => named == key,
            _ => true,
        });
        let not_there = || Ok(Some(Err("names a file that is not yours, or not there any more".to_owned())));
        match (key, file) {
            (Some(key), _) => match self.artifacts.load(&key).await {
                Ok(bytes) => Ok(Some(Ok(bytes))),
                // Deleted between the two looks.
                Err(error) if error.is_missing() => not_there(),
                Err(error) => Err(error.into()),
            },
            (None, OwnFile::PerhapsUpload(_)) => Ok(None),
            (None, _) => not_there(),
        }
    }
}

/// A name as people may see it again.
fn shown_name(name: &str) -> String {
    let name = name.rsplit(['/', '\\']).next().unwrap_or_default();
    name.chars().filter(|letter| !letter.is_control()).take(LONGEST_NAME).collect()
}

fn hash_of(ticket: &str) -> [u8; 32] {
    Sha256::digest(ticket).into()
}
