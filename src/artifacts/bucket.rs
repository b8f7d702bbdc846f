//! Files in a bucket of S3 or of anything that speaks like it.
//!
//! Clients read them through the server, as they read a folder's: there is one kind of URL, which is good for as long
//! as the file is kept, and the bucket may be where only the servers reach it.

use std::time::Duration;

use object_store::{
    BackoffConfig, ClientOptions, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder, S3ConditionalPut},
    prefix::PrefixStore,
};

/// A bucket, and who may use it.
#[derive(Clone)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// What all keys begin with; empty for the whole bucket.
    pub prefix: String,
    /// Where it is, if not at AWS: `http://127.0.0.1:9000`.
    pub endpoint: Option<String>,
    /// Its region.
    pub region: String,
    /// Id and secret of an access key, and perhaps a session's token. `None` is the role that the environment names.
    pub credentials: Option<Credentials>,
}

/// An access key.
#[derive(Clone)]
pub struct Credentials {
    /// Its id.
    pub id: String,
    /// Its secret.
    pub secret: String,
    /// Of temporary ones.
    pub token: Option<String>,
}

/// A request that is not answered is sent again after a moment, and given up before its caller's client gives up.
const RETRIES: RetryConfig = RetryConfig {
    backoff: BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(1), base: 2.0 },
    max_retries: 3,
    retry_timeout: Duration::from_secs(10),
};
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Of one request, its body included.
const TIMEOUT: Duration = Duration::from_secs(30);

pub(super) fn open(bucket: &Bucket) -> object_store::Result<PrefixStore<AmazonS3>> {
    // Without an access key the environment says what role there is: of a machine, a container or a pod.
    let builder = if bucket.credentials.is_some() { AmazonS3Builder::new() } else { AmazonS3Builder::from_env() };
    let mut builder = builder
        .with_bucket_name(&bucket.name)
        .with_region(&bucket.region)
        .with_conditional_put(S3ConditionalPut::Disabled)
        // Not all that speak like S3 delete several at once.
        .with_disable_bulk_delete(true)
        .with_retry(RETRIES)
        .with_client_options(
            ClientOptions::new().with_connect_timeout(CONNECT_TIMEOUT).with_timeout(TIMEOUT).with_allow_http(true),
        );
    if let Some(endpoint) = &bucket.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(Credentials { id, secret, token }) = &bucket.credentials {
        builder = builder.with_access_key_id(id).with_secret_access_key(secret);
        if let Some(token) = token {
            builder = builder.with_token(token);
        }
    }
    Ok(PrefixStore::new(builder.build()?, bucket.prefix.as_str()))
}
