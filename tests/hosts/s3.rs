//! A bucket on a host of its own.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Stdio},
};

use fourstep::artifacts::{Artifacts, Bucket, Credentials};

use crate::{here, installed::javascript, network::Host, process::TestFolder};

const PORT: u16 = 9000;
const ACCOUNT: &str = "S3RVER";

/// Gone when dropped.
pub(crate) struct S3 {
    host: Host,
    process: Child,
    _folder: TestFolder,
}

impl S3 {
    pub(crate) fn start(host: Host) -> Self {
        let folder = TestFolder::new();
        let mut server = javascript(&here("s3_server.js"));
        server.arg(&folder.0).arg(PORT.to_string()).arg(host.address.to_string());
        let mut process = host.running(&server).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("http://"), "{line:?}");
        Self { host, process, _folder: folder }
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    fn url(&self) -> String {
        format!("http://{}:{PORT}", self.host.address)
    }

    /// What a program needs to know of it.
    pub(crate) fn variables(&self) -> Vec<(String, String)> {
        let endpoint = self.url();
        [
            ("FOURSTEP_ARTIFACTS__URL", "s3://pictures/many/hosts"),
            ("AWS_ENDPOINT_URL_S3", endpoint.as_str()),
            ("AWS_ACCESS_KEY_ID", ACCOUNT),
            ("AWS_SECRET_ACCESS_KEY", ACCOUNT),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }

    /// The files, as the programs see them.
    pub(crate) fn artifacts(&self) -> Artifacts {
        let bucket = Bucket {
            name: "pictures".to_owned(),
            prefix: "many/hosts".to_owned(),
            endpoint: Some(self.url()),
            region: "us-east-1".to_owned(),
            credentials: Some(Credentials { id: ACCOUNT.to_owned(), secret: ACCOUNT.to_owned(), token: None }),
        };
        Artifacts::in_bucket(&bucket).unwrap()
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
