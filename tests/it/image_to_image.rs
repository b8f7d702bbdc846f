//! Image to image through the server: an image in a request, where it is kept, what is drawn from it, and how it goes.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use candle_core::{DType, Device};
use fourstep::{
    artifacts::Artifacts,
    domain::{OutputFormat, Prediction, PredictionId, Scheduler, Status},
    pipeline::Options,
    worker::{
        WorkerPool,
        predictor::{Mock, Predictor, Sdxl, SdxlOptions},
        prune,
    },
};
use image::{ImageFormat, Rgb, RgbImage};
use reqwest::StatusCode;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::{
    process::TestFolder,
    queue::Queue,
    support::{PATIENCE, TestApp, eventually, id, json},
    worker::settings,
};

fn png(image: &RgbImage) -> Vec<u8> {
    let mut png = std::io::Cursor::new(Vec::new());
    image.write_to(&mut png, ImageFormat::Png).unwrap();
    png.into_inner()
}

fn data_uri(file: &[u8]) -> String {
    format!("data:image/png;base64,{}", BASE64_STANDARD.encode(file))
}

fn white(width: u32, height: u32) -> String {
    data_uri(&png(&RgbImage::from_pixel(width, height, Rgb([255; 3]))))
}

/// A model of these weights on the CPU.
fn cpu(weights: PathBuf) -> SdxlOptions {
    SdxlOptions {
        weights,
        unet: None,
        loras: Vec::new(),
        device: Device::Cpu,
        dtype: DType::F32,
        options: Options::default(),
    }
}

impl TestApp {
    /// Runs what is queued with a mock and returns the documents' final form.
    async fn drawn(&self, id: &str) -> Value {
        let load: fourstep::worker::Load = Box::new(|| Ok(Box::new(Mock::new(Duration::ZERO))));
        let workers = WorkerPool::start(&self.store, &self.artifacts, &settings(), vec![load]).unwrap();
        let document = json(self.get(&format!("/predictions/{id}?wait=20")).send().await.unwrap()).await;
        workers.drain(&self.store, PATIENCE).await;
        document
    }

    /// Downloads an output.
    async fn picture(&self, url: &Value) -> (String, Vec<u8>) {
        let response = self.client.get(url.as_str().unwrap()).send().await.unwrap();
        let content_type = response.headers()["content-type"].to_str().unwrap().to_owned();
        (content_type, response.bytes().await.unwrap().to_vec())
    }

    async fn stored(&self, id: &str) -> Prediction {
        self.store.get(self.caller.account_id, id.parse().unwrap()).await.unwrap().unwrap()
    }
}

#[sqlx::test]
async fn an_image_decides_on_the_size_and_shows_in_what_is_drawn(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let created = app.create(json!({"prompt": "x", "image": white(300, 200), "prompt_strength": 0.25})).await;
    let echo = created["input"]["image"].as_str().unwrap();
    assert!(echo.starts_with("data:image/png;base64,iVBORw0KGgo") && echo.len() < 200, "{echo}");
    let id = id(&created);
    let drawn = app.drawn(&id).await;
    assert_eq!(drawn["status"], "succeeded", "{drawn}");
    // A quarter of four steps.
    assert!(drawn["logs"].as_str().unwrap().contains("| 1/1 ["), "{drawn}");
    let (_, file) = app.picture(&drawn["output"][0]).await;
    let picture = image::load_from_memory(&file).unwrap().into_rgb8();
    assert_eq!(picture.dimensions(), (384, 256), "the least that is drawn, in the image's proportions");
    assert!(picture.iter().all(|level| *level >= 190), "three quarters of it are white");
}

#[sqlx::test]
async fn what_is_no_image_is_refused_before_anything_is_queued(pool: PgPool) {
    let app = TestApp::start(pool.clone()).await;
    let enormous = {
        let mut png = png(&RgbImage::new(8, 8));
        png[16..24].copy_from_slice(&[0, 0, 0xEA, 0x60, 0, 0, 0xEA, 0x60]);
        let checksum = crc32fast::hash(&png[12..29]);
        png[29..33].copy_from_slice(&checksum.to_be_bytes());
        data_uri(&png)
    };
    for (input, field, words) in [
        (json!({"image": "ftp://example.com/a.png"}), "input.image", "https: URL"),
        (json!({"image_url": "http://127.0.0.1/a.png"}), "input.image_url", "not public"),
        (json!({"image_url": "http://user@example.com/a.png"}), "input.image_url", "user name"),
        (json!({"image": "a.png"}), "input.image", "data: URI"),
        (json!({"image": "data:image/png;base64,?"}), "input.image", "valid base64"),
        (json!({"image": data_uri(b"<svg/>")}), "input.image", "PNG, JPEG or WebP"),
        (json!({"image": data_uri(&png(&RgbImage::new(8, 8))[..40])}), "input.image", "cannot be decoded"),
        (json!({"image": enormous}), "input.image", "not 60000x60000"),
        (json!({"image": white(8, 8), "strength": 0.1}), "input.strength", "at least 1"),
        (json!({"image": white(8, 8), "mask": white(8, 8)}), "input.mask", "not supported"),
    ] {
        let response = app.post("/predictions").json(&json!({"input": input})).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY, "{field}, {words}");
        let problem = json(response).await;
        let [invalid] = &problem["invalid_fields"].as_array().unwrap()[..] else { panic!("{problem}") };
        let reason = invalid["reason"].as_str().unwrap();
        assert!(invalid["field"] == field && reason.contains(words), "{problem}");
    }
    let count: i64 = sqlx::query_scalar("select count(*) from predictions").fetch_one(&pool).await.unwrap();
    assert_eq!(count, 0);
}

#[sqlx::test]
async fn an_image_is_fetched_from_its_url(pool: PgPool) {
    let picture = png(&RgbImage::from_pixel(300, 200, Rgb([255; 3])));
    let routes = axum::Router::new()
        .route("/white.png", axum::routing::get(async move || picture))
        .route("/page", axum::routing::get(async || "<html>"));
    let listener = tokio::net::TcpListener::bind("127.0.0.2:0").await.unwrap();
    let pictures = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, routes).await });

    let app = TestApp::start(pool).await;
    let url = format!("{pictures}/white.png");
    let created = app.create(json!({"prompt": "x", "image": url, "prompt_strength": 0.25})).await;
    assert_eq!(created["input"]["image"], url.as_str());
    let drawn = app.drawn(&id(&created)).await;
    let (_, file) = app.picture(&drawn["output"][0]).await;
    assert_eq!(image::load_from_memory(&file).unwrap().into_rgb8().dimensions(), (384, 256));
    for (path, words) in [("missing", "status 404"), ("page", "PNG, JPEG or WebP")] {
        let input = json!({"input": {"image": format!("{pictures}/{path}")}});
        let problem = json(app.post("/predictions").json(&input).send().await.unwrap()).await;
        assert_eq!(problem["invalid_fields"][0]["field"], "input.image", "{problem}");
        assert!(problem["invalid_fields"][0]["reason"].as_str().unwrap().contains(words), "{problem}");
    }
}

#[sqlx::test]
async fn the_same_image_again_is_the_same_prediction_and_another_is_a_conflict(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let path = format!("/predictions/{}", PredictionId::generate());
    let put = async |image: String| {
        let body = json!({"input": {"prompt": "x", "image": image}});
        app.request(reqwest::Method::PUT, &path).json(&body).send().await.unwrap().status()
    };
    assert_eq!(put(white(300, 200)).await, StatusCode::ACCEPTED);
    assert_eq!(put(white(300, 200)).await, StatusCode::ACCEPTED);
    assert_eq!(put(white(200, 300)).await, StatusCode::CONFLICT);
    // Neither took the first one's image away.
    let key = app.claim().await.input.image.unwrap();
    let image = image::load_from_memory(&app.artifacts.load(&key).await.unwrap()).unwrap();
    assert_eq!((image.width(), image.height()), (300, 200));
}

#[sqlx::test]
async fn an_image_is_public_to_nobody_and_deleted_with_its_prediction(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let id = id(&app.create(json!({"image": white(256, 256)})).await);
    let key = app.stored(&id).await.input.image.unwrap();
    assert!(key.starts_with(&format!("inputs/{id}/")), "{key}");
    let response = app.get(&format!("/files/{key}")).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_FOUND);

    app.run_one().await;
    assert!(app.artifacts.load(&key).await.is_ok());
    prune(&app.store, &app.artifacts, Duration::ZERO).await;
    assert!(app.artifacts.load(&key).await.is_err());
    let pruned = app.stored(&id).await;
    assert_eq!((pruned.input.image, pruned.raw_input, pruned.data_removed), (None, json!({}), true));
}

#[sqlx::test]
async fn a_prediction_canceled_before_it_ran_keeps_no_image(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let create = async || id(&app.create(json!({"image": white(256, 256)})).await);
    let cancel = async |id: &str| {
        let canceled = app.post(&format!("/predictions/{id}/cancel")).send().await.unwrap();
        assert_eq!(canceled.status(), StatusCode::OK);
        json(canceled).await
    };
    let running = create().await;
    let claim = app.claim().await;
    let queued = create().await;
    let key = app.stored(&queued).await.input.image.unwrap();
    for _ in 0..2 {
        let canceled = cancel(&queued).await;
        assert_eq!(canceled["status"], "canceled");
        assert!(canceled["input"]["image"].as_str().unwrap().starts_with("data:image/png"), "{canceled}");
    }
    eventually("its image is gone", async || app.artifacts.load(&key).await.is_err()).await;
    // A worker may be reading this one.
    assert_eq!(cancel(&running).await["status"], "processing");
    assert!(app.artifacts.load(claim.input.image.as_ref().unwrap()).await.is_ok());
}

#[sqlx::test]
async fn a_prediction_whose_deadline_passed_before_it_ran_keeps_no_image(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let id = id(&app.create(json!({"image": white(256, 256)})).await);
    let key = app.stored(&id).await.input.image.unwrap();
    sqlx::query("update predictions set deadline = now()").execute(&app.pool).await.unwrap();
    let sweeping = WorkerPool::start(&app.store, &app.artifacts, &settings(), Vec::new()).unwrap();
    eventually("its image is gone", async || app.artifacts.load(&key).await.is_err()).await;
    assert_eq!(app.prediction(&id).await["status"], "canceled");
    sweeping.drain(&app.store, PATIENCE).await;
}

#[sqlx::test]
async fn images_come_in_the_format_that_was_asked_for(pool: PgPool) {
    let app = TestApp::start(pool).await;
    for (name, content_type, format) in [
        ("png", "image/png", ImageFormat::Png),
        ("jpg", "image/jpeg", ImageFormat::Jpeg),
        ("webp", "image/webp", ImageFormat::WebP),
    ] {
        let input = json!({"prompt": "a cat", "width": 256, "height": 256, "output_format": name});
        let id = id(&app.create(input).await);
        let drawn = app.drawn(&id).await;
        let url = drawn["output"][0].as_str().unwrap();
        assert!(url.ends_with(&format!("/out-0.{name}")), "{url}");
        let (found_type, file) = app.picture(&drawn["output"][0]).await;
        assert_eq!((found_type.as_str(), image::guess_format(&file).unwrap()), (content_type, format));
    }
}

#[sqlx::test]
async fn a_worker_draws_from_an_image_what_the_reference_draws(pool: PgPool) {
    let queue = Queue::new(pool).await;
    let artifacts = Artifacts::in_folder(&queue.outputs.0, false).unwrap();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pipeline");
    let start = std::fs::read(fixtures.join("images/start.png")).unwrap();
    // As `tools/golden/images.py` asks diffusers.
    let mut new = queue.new_prediction();
    let key = Artifacts::input_key(new.id).unwrap();
    artifacts.put(&key, start).await.unwrap();
    let input = &mut new.input;
    (input.prompt, input.negative_prompt) = ("a photo! of the man and his cats, it's 🙂".to_owned(), None);
    (input.width, input.height, input.seed) = (56, 80, 1234);
    (input.scheduler, input.num_inference_steps, input.output_format) = (Scheduler::KEuler, 5, OutputFormat::Webp);
    (input.image, input.prompt_strength) = (Some(key), 0.7);
    queue.store.create(&new).await.unwrap();

    let options = cpu(fixtures.join("tiny"));
    let load: fourstep::worker::Load = Box::new(move || Ok(Box::new(Sdxl::load(&options)?)));
    let workers = WorkerPool::start(&queue.store, &artifacts, &settings(), vec![load]).unwrap();
    eventually("the prediction ends", async || queue.get(new.id).await.status.is_terminal()).await;
    let ended = queue.get(new.id).await;
    assert_eq!(ended.status, Status::Succeeded, "{:?}", ended.failure);
    let file = artifacts.load(&ended.output.unwrap()[0].key).await.unwrap();
    let drawn = image::load_from_memory(&file).unwrap().into_rgb8();
    let expected = image::open(fixtures.join("images/K_EULER.image.plain.png")).unwrap().into_rgb8();
    assert_eq!(drawn.dimensions(), expected.dimensions());
    assert!(drawn.iter().zip(expected.iter()).all(|(a, b)| a.abs_diff(*b) <= 1));
    workers.drain(&queue.store, PATIENCE).await;
}

/// By a model whose encoder says nothing but nonsense, which only who uses it finds out.
#[test]
fn a_warm_up_encodes_an_image_as_well() {
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pipeline/tiny");
    let folder = TestFolder::new();
    for part in std::fs::read_dir(&tiny).unwrap() {
        let name = part.unwrap().file_name();
        if name != "vae" {
            std::os::unix::fs::symlink(tiny.join(&name), folder.0.join(&name)).unwrap();
        }
    }
    let (from, to) = (tiny.join("vae"), folder.0.join("vae"));
    std::fs::create_dir(&to).unwrap();
    std::fs::copy(from.join("config.json"), to.join("config.json")).unwrap();
    let name = "diffusion_pytorch_model.safetensors";
    let mut tensors = candle_core::safetensors::load(from.join(name), &Device::Cpu).unwrap();
    let bias = tensors.get_mut("encoder.conv_in.bias").unwrap();
    *bias = (bias.zeros_like().unwrap() / 0.0).unwrap();
    candle_core::safetensors::save(&tensors, to.join(name)).unwrap();

    let mut model = Sdxl::load(&cpu(folder.0.clone())).unwrap();
    let failure = model.warm_up().unwrap_err();
    assert!(failure.message.contains("the VAE's encoder"), "{failure:?}");
    Sdxl::load(&cpu(tiny)).unwrap().warm_up().unwrap();
}

#[sqlx::test]
async fn an_image_that_is_gone_fails_its_prediction_and_costs_nothing(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let id = id(&app.create(json!({"image": white(256, 256)})).await);
    let key = app.stored(&id).await.input.image.unwrap();
    app.artifacts.delete(vec![key]).await;
    let ended = app.drawn(&id).await;
    assert_eq!((&ended["status"], &ended["error_code"]), (&json!("failed"), &json!("internal")));
    assert_eq!(ended["metrics"]["cost"].as_f64(), Some(0.0));
}
