//! What the tests share: a cache of their own, a small model, and pulling it.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use fourstep::{
    domain::{Catalog, Model},
    hub::{Environment, Error, Event, Hub, Transfer},
};

use crate::fake_hub::{COMMIT, FakeHub};

/// Bytes of a range, and how many ranges are under way at once.
pub(crate) const RANGE: u64 = 64 << 10;
pub(crate) const CONNECTIONS: usize = 4;
pub(crate) const UNET: &str = "unet/diffusion_pytorch_model.safetensors";

/// A folder for `HF_HOME`, removed at the end.
pub(crate) struct Home(PathBuf);

impl Home {
    pub(crate) fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("fourstep-pull-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn variables(&self, more: &[(&str, &str)]) -> Vec<(String, String)> {
        let home = self.0.to_str().unwrap();
        let all = [("HF_HOME", home)].into_iter().chain(more.iter().copied());
        all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    pub(crate) fn environment(&self, more: &[(&str, &str)]) -> Environment {
        Environment::from_variables(self.variables(more)).unwrap()
    }

    /// The folder of a repository in the cache.
    pub(crate) fn repository(&self, repository: &str) -> PathBuf {
        self.0.join("hub").join(format!("models--{}", repository.replace('/', "--")))
    }

    /// The names in the folder of a repository's blobs.
    pub(crate) fn blobs(&self, repository: &str) -> Vec<String> {
        let Ok(folder) = fs::read_dir(self.repository(repository).join("blobs")) else { return Vec::new() };
        let mut names: Vec<String> = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A model whose one file, `weights.bin` of `acme/weights`, is its UNet.
pub(crate) fn model() -> Model {
    model_of(&[("acme/weights", COMMIT, "weights.bin", UNET)])
}

/// A model of these files: repository, revision, path, destination. Those of a safety checker are optional.
pub(crate) fn model_of(files: &[(&str, &str, &str, &str)]) -> Model {
    Catalog::parse(&catalog_of(files)).unwrap().default_model().clone()
}

/// The catalog whose one model this is.
pub(crate) fn catalog_of(files: &[(&str, &str, &str, &str)]) -> String {
    let mut catalog = r#"
        [[models]]
        slug = "tiny"
        owners = ["acme"]
        title = "Tiny"
        description = "For tests."
        price_nano_usd_per_second = 1
        average_run_seconds = 1.0
        limits = { min_size = 8, max_size = 8, default_size = 8, max_outputs = 1, default_steps = 1, max_steps = 1, max_guidance_scale = 1.0, prompt_characters = 1 }
    "#
    .to_owned();
    for (repository, revision, path, destination) in files {
        catalog += &format!(
            "[[models.files]]\nrepository = {repository:?}\nrevision = {revision:?}\npath = {path:?}\ndestination = {destination:?}\noptional = {}\n",
            destination.starts_with("safety_checker/")
        );
    }
    catalog
}

/// Small ranges and short waits, so that small files are enough.
pub(crate) fn transfer() -> Transfer {
    Transfer {
        connections: CONNECTIONS,
        range_bytes: RANGE,
        attempts: 6,
        first_backoff: Duration::from_millis(1),
        stall: Duration::from_millis(500),
    }
}

pub(crate) fn hub(home: &Home, fake: &FakeHub, more: &[(&str, &str)]) -> Hub {
    let endpoint = fake.endpoint();
    let mut variables = vec![("HF_ENDPOINT", endpoint.as_str())];
    variables.extend(more);
    Hub::new(home.environment(&variables), transfer()).unwrap()
}

/// Plans and pulls.
pub(crate) async fn pull(hub: &Hub, model: &Model) -> Result<PathBuf, Error> {
    let plan = hub.plan(model).await?;
    hub.pull(model, &plan, &|_| {}).await
}

/// Plans and pulls, and tells what happened in between.
pub(crate) async fn pull_watched(hub: &Hub, model: &Model) -> (Result<PathBuf, Error>, Vec<Event>) {
    let plan = hub.plan(model).await.unwrap();
    let events = std::sync::Mutex::new(Vec::new());
    let result = hub.pull(model, &plan, &|event| events.lock().unwrap().push(event)).await;
    (result, events.into_inner().unwrap())
}

/// The bytes of every file under a folder, links followed.
pub(crate) fn contents(folder: &Path) -> HashMap<String, Vec<u8>> {
    fn walk(folder: &Path, prefix: &str, found: &mut HashMap<String, Vec<u8>>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("{prefix}{}", path.file_name().unwrap().to_str().unwrap());
            if path.is_dir() {
                walk(&path, &format!("{name}/"), found);
            } else {
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    let mut found = HashMap::new();
    walk(folder, "", &mut found);
    found
}
