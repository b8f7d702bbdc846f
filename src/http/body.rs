//! Request bodies, read whole, and how much all that are under way may take together.

use std::{sync::Arc, time::Duration};

use axum::body::{Body, HttpBody};
use http_body_util::BodyExt;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::Error;
use crate::service::keep_for_body;

/// How long a body may take to arrive.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bodies up to this are not counted: a create without a picture is not refused for the pictures of others.
const UNCOUNTED: usize = 64 << 10;

/// What the bodies under way may have together, in bytes that are left.
#[derive(Clone, Debug)]
pub(super) struct Bodies(Arc<Semaphore>);

impl Bodies {
    pub(super) fn new(all: usize) -> Self {
        Self(Arc::new(Semaphore::new(all.min(Semaphore::MAX_PERMITS))))
    }

    /// A body, whole, of at most `limit` bytes. What has come of it is counted, until its request is answered or what was
    /// in it is kept elsewhere.
    pub(super) async fn read(&self, body: Body, limit: usize) -> Result<Vec<u8>, Error> {
        let read = timeout(PATIENCE, self.collect(body, limit)).await;
        let (bytes, share) = read.map_err(|_| Error::BodyTooSlow)??;
        if let Some(share) = share {
            keep_for_body(share);
        }
        Ok(bytes)
    }

    async fn collect<B>(&self, mut body: B, limit: usize) -> Result<(Vec<u8>, Option<OwnedSemaphorePermit>), Error>
    where
        B: HttpBody<Data = axum::body::Bytes> + Unpin,
    {
        let mut bytes = Vec::new();
        let mut share: Option<OwnedSemaphorePermit> = None;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| Error::BodyCutShort)?.into_data() else { continue };
            if bytes.len() + data.len() > limit {
                return Err(Error::BodyTooLarge { limit });
            }
            // Copied: a frame of one byte would keep the whole buffer it was read into.
            bytes.extend_from_slice(&data);
            if bytes.len() > UNCOUNTED {
                let counted = share.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
                let more = u32::try_from(bytes.len() - counted).map_err(|_| Error::BodyTooLarge { limit })?;
                let more = Arc::clone(&self.0).try_acquire_many_owned(more).map_err(|_| Error::TooManyBodies)?;
                match &mut share {
                    Some(share) => share.merge(more),
                    None => share = Some(more),
                }
            }
        }
        Ok((bytes, share))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(bodies: &Bodies) -> usize {
        bodies.0.available_permits()
    }

    #[tokio::test]
    async fn bodies_are_counted_beyond_what_a_create_has() {
        let bodies = Bodies::new(300_000);
        let body = |length: usize| Body::from(vec![7; length]);
        let (small, share) = bodies.collect(body(UNCOUNTED), 1 << 20).await.expect("small");
        assert!(small.len() == UNCOUNTED && share.is_none());
        let (_, first) = bodies.collect(body(200_000), 1 << 20).await.expect("there is room");
        assert_eq!(left(&bodies), 100_000);
        assert!(matches!(bodies.collect(body(100_001), 1 << 20).await, Err(Error::TooManyBodies)));
        assert_eq!(left(&bodies), 100_000);
        assert!(matches!(bodies.collect(body(70_000), 69_999).await, Err(Error::BodyTooLarge { limit: 69_999 })));
        drop(first);
        assert_eq!(left(&bodies), 300_000);
    }

    #[tokio::test]
    async fn a_body_of_single_bytes_is_one_piece() {
        let buffer = axum::body::Bytes::from((0..100_000_u32).map(|byte| byte as u8).collect::<Vec<_>>());
        let frames: Vec<_> =
            (0..buffer.len()).map(|at| Ok::<_, std::convert::Infallible>(buffer.slice(at..=at))).collect();
        let body = Body::from_stream(futures_util::stream::iter(frames));
        let (bytes, share) = Bodies::new(100_000).collect(body, 1 << 20).await.expect("there is room");
        assert_eq!(bytes, buffer);
        assert_eq!(share.map(|share| share.num_permits()), Some(100_000));
    }
}
