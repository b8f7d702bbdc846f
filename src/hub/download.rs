//! The bytes of one file, from the hub into a `Partial`: parallel ranges, each taken up where it broke.
//!
//! A range is one request; a block is what is written and noted at once, and what a kill costs each connection. Knows
//! nothing of hashes and of other files; `pull` does.

use std::{ops::Range, sync::Arc, time::Duration};

use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::{Response, Url};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    task::spawn_blocking,
};

use super::{
    Error, Transfer,
    client::{Body, Client, Metadata, reason, shown},
    partial::Partial,
    retry::{Failure, Patience},
};
use crate::domain::WeightFile;

/// A file on its way.
pub(super) struct Download<'a> {
    pub(super) client: &'a Client,
    pub(super) file: &'a WeightFile,
    pub(super) metadata: &'a Metadata,
    pub(super) partial: Arc<Partial>,
    /// One permit for each connection that all files together may use.
    pub(super) connections: &'a Semaphore,
    pub(super) report: &'a (dyn Fn(Step) + Sync),
}

/// What happens during a download.
pub(super) enum Step {
    /// So many more bytes have arrived.
    Arrived(u64),
    /// So many bytes are to arrive again.
    Lost(u64),
    /// It broke, and goes on after the wait.
    Broken { reason: String, wait: Duration },
}

/// How a range ended.
enum End {
    Done,
    /// The server sends only whole files.
    NoRanges,
}

impl Download<'_> {
    /// Fetches all that is missing.
    pub(super) async fn run(&self) -> Result<(), Error> {
        let transfer = self.client.transfer();
        let ranges = self.partial.missing(transfer.range_bytes);
        let mut ends = stream::iter(ranges).map(|range| self.fetch_range(range)).buffer_unordered(transfer.connections);
        while let Some(end) = ends.try_next().await? {
            if matches!(end, End::NoRanges) {
                // The other requests would each be answered with the whole file as well.
                drop(ends);
                return self.fetch_whole().await;
            }
        }
        Ok(())
    }

    async fn fetch_range(&self, range: Range<u64>) -> Result<End, Error> {
        // Kept while it waits to try again, too: a server that asks for patience should not meet another request
        // instead, and no more blocks are under way than there are connections.
        let _permit = self.connection().await;
        let mut sink = Sink::new(self, range.clone());
        let mut patience = Patience::new(self.client.transfer());
        loop {
            let before = sink.position();
            let failure = match self.attempt(&mut sink, range.end).await {
                Ok(end) => return Ok(end),
                Err(failure) => failure,
            };
            if sink.position() > before {
                patience.progressed();
            }
            self.wait(&mut patience, failure).await?;
        }
    }

    async fn attempt(&self, sink: &mut Sink<'_>, end: u64) -> Result<End, Failure> {
        let asked = sink.position()..end;
        match self.client.get(self.file, self.metadata, &asked).await? {
            Body::Asked(response) => {
                sink.fill(response).await?;
                Ok(End::Done)
            }
            Body::Whole => Ok(End::NoRanges),
        }
    }

    /// From a server without ranges there is only the whole file, from its beginning, each time anew.
    async fn fetch_whole(&self) -> Result<(), Error> {
        let _permit = self.connection().await;
        let mut patience = Patience::new(self.client.transfer());
        let arrived = self.partial.arrived();
        if arrived > 0 {
            (self.report)(Step::Lost(arrived));
        }
        loop {
            let mut sink = Sink::new(self, 0..self.partial.extent().size);
            let failure = match self.attempt(&mut sink, self.partial.extent().size).await {
                Ok(_) => return Ok(()),
                Err(failure) => failure,
            };
            (self.report)(Step::Lost(sink.position()));
            self.wait(&mut patience, failure).await?;
        }
    }

    async fn connection(&self) -> SemaphorePermit<'_> {
        self.connections.acquire().await.expect("the semaphore is never closed")
    }

    async fn wait(&self, patience: &mut Patience, failure: Failure) -> Result<(), Error> {
        let (wait, error) = patience.after(failure)?;
        (self.report)(Step::Broken { reason: error.to_string(), wait });
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

/// Takes the bytes of a range in order and keeps them block by block. What it holds survives a broken connection.
struct Sink<'a> {
    partial: &'a Arc<Partial>,
    report: &'a (dyn Fn(Step) + Sync),
    /// Where the block in `buffer` begins.
    block_start: u64,
    end: u64,
    buffer: Vec<u8>,
}

impl<'a> Sink<'a> {
    fn new(download: &'a Download<'_>, range: Range<u64>) -> Self {
        Self {
            partial: &download.partial,
            report: download.report,
            block_start: range.start,
            end: range.end,
            buffer: Vec::new(),
        }
    }

    fn position(&self) -> u64 {
        self.block_start + self.buffer.len() as u64
    }

    async fn fill(&mut self, mut response: Response) -> Result<(), Failure> {
        let url = response.url().clone();
        while let Some(chunk) = response.chunk().await.map_err(|error| broken(&url, reason(&error)))? {
            if self.end - self.position() < chunk.len() as u64 {
                return Err(broken(&url, "more arrived than was asked for".to_owned()));
            }
            self.take(&chunk).await.map_err(Failure::Lasting)?;
            (self.report)(Step::Arrived(chunk.len() as u64));
        }
        if self.position() < self.end {
            return Err(broken(&url, "it ended early".to_owned()));
        }
        Ok(())
    }

    async fn take(&mut self, mut chunk: &[u8]) -> Result<(), Error> {
        while !chunk.is_empty() {
            let block_end = (self.block_start + self.partial.extent().block).min(self.end);
            let room = usize::try_from(block_end - self.position()).unwrap_or(usize::MAX);
            let (now, later) = chunk.split_at(room.min(chunk.len()));
            self.buffer.extend_from_slice(now);
            chunk = later;
            if self.position() == block_end {
                self.keep().await?;
            }
        }
        Ok(())
    }

    async fn keep(&mut self) -> Result<(), Error> {
        let (partial, start, block) = (self.partial.clone(), self.block_start, std::mem::take(&mut self.buffer));
        self.block_start += block.len() as u64;
        let kept = spawn_blocking(move || {
            partial.keep(start, &block)?;
            Ok(block)
        });
        let block: Vec<u8> = kept
            .await
            .unwrap_or_else(|error| Err(std::io::Error::other(error)))
            .map_err(Error::folder(self.partial.path()))?;
        // The same memory again for the next block.
        self.buffer = block;
        self.buffer.clear();
        Ok(())
    }
}

fn broken(url: &Url, reason: String) -> Failure {
    Failure::passing(Error::Unreachable { url: shown(url), reason })
}

impl Transfer {
    /// Blocks so small that those under way on all connections, and what the network holds of the next, are no more
    /// than one range: that is what a kill costs.
    pub(super) fn block_bytes(&self) -> u64 {
        (self.range_bytes / (4 * self.connections as u64)).max(1)
    }
}
