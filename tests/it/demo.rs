//! The model a newcomer has, by meaning: whoever asks for a red circle on a blue background over HTTP gets one.

use std::{path::Path, process::Command};

use base64::{Engine, prelude::BASE64_STANDARD};
use fourstep::{demo, domain::Scheduler};
use image::{Rgb, RgbImage};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::process::{Client, Program, TestFolder, url_of};

const RED: Rgb<u8> = Rgb([220, 30, 35]);
const GREEN: Rgb<u8> = Rgb([30, 160, 60]);
const BLUE: Rgb<u8> = Rgb([35, 75, 215]);
const YELLOW: Rgb<u8> = Rgb([248, 215, 40]);
const ORANGE: Rgb<u8> = Rgb([245, 130, 25]);
const PURPLE: Rgb<u8> = Rgb([125, 45, 165]);
const PINK: Rgb<u8> = Rgb([250, 140, 185]);
const CYAN: Rgb<u8> = Rgb([50, 205, 220]);
const WHITE: Rgb<u8> = Rgb([250, 250, 250]);
const BLACK: Rgb<u8> = Rgb([20, 20, 22]);
/// Every color the model was taught.
const PALETTE: [Rgb<u8>; 10] = [RED, GREEN, BLUE, YELLOW, ORANGE, PURPLE, PINK, CYAN, WHITE, BLACK];

/// The color of the palette that most of a small square around a point is nearest to.
fn color_at(picture: &RgbImage, (x, y): (u32, u32)) -> Rgb<u8> {
    let mut sum = [0; 3];
    for (dx, dy) in (0..9).flat_map(|dx| (0..9).map(move |dy| (dx, dy))) {
        let Rgb(pixel) = *picture.get_pixel(x + dx - 4, y + dy - 4);
        sum.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += i64::from(value));
    }
    let distance = |Rgb(color): &Rgb<u8>| -> i64 {
        color.iter().zip(sum).map(|(&color, sum)| (i64::from(color) - sum / 81).pow(2)).sum()
    };
    PALETTE.into_iter().min_by_key(distance).unwrap()
}

/// Draws `input` and returns the prediction and its picture.
async fn draw(client: &Client, input: &Value) -> (Value, RgbImage) {
    let prediction: Value = client.post(60, input).await.unwrap().json().await.unwrap();
    assert_eq!(prediction["status"], "succeeded", "{prediction}");
    let png = client.fetch(prediction["output"][0].as_str().unwrap()).await.unwrap();
    let picture = image::load_from_memory_with_format(&png, image::ImageFormat::Png).unwrap().into_rgb8();
    (prediction, picture)
}

fn assert_shows(picture: &RgbImage, object: Rgb<u8>, background: Rgb<u8>, what: &str) {
    let (width, height) = picture.dimensions();
    assert_eq!(color_at(picture, (width / 2, height / 2)), object, "{what}: in the middle");
    for corner in [(12, 12), (width - 12, 12), (12, height - 12), (width - 12, height - 12)] {
        assert_eq!(color_at(picture, corner), background, "{what}: at {corner:?}");
    }
}

#[sqlx::test]
async fn a_picture_shows_what_its_prompt_says(pool: PgPool) {
    let (folder, url) = (TestFolder::new(), url_of(&pool));
    let server = Program::serve_demo(&folder.0, &url);
    let client = Client::of(&server, &folder.0);
    let prompts = [
        ("a red circle on a blue background", RED, BLUE),
        ("a yellow star on a black background", YELLOW, BLACK),
        ("a large green square, white backdrop", GREEN, WHITE),
        ("a big purple heart in the middle, plain yellow background", PURPLE, YELLOW),
        ("blue backdrop with one big orange disc", ORANGE, BLUE),
    ];
    for (seed, (prompt, object, background)) in prompts.into_iter().enumerate() {
        let (_, picture) = draw(&client, &json!({"prompt": prompt, "seed": seed})).await;
        assert_eq!(picture.dimensions(), (256, 256));
        assert_shows(&picture, object, background, prompt);
    }
}

#[sqlx::test]
async fn every_scheduler_draws_it(pool: PgPool) {
    let (folder, url) = (TestFolder::new(), url_of(&pool));
    let server = Program::serve_demo(&folder.0, &url);
    let client = Client::of(&server, &folder.0);
    for scheduler in Scheduler::ALL {
        let name = scheduler.as_str();
        let input = json!({"prompt": "a red circle on a blue background", "scheduler": name, "seed": 1,
            "num_inference_steps": 4});
        assert_shows(&draw(&client, &input).await.1, RED, BLUE, name);
    }
}

/// How much of what is `object`'s color and what `drawn` says should be (in shorter sides from the middle) is both.
fn overlap(picture: &RgbImage, object: Rgb<u8>, background: Rgb<u8>, drawn: fn(f64, f64) -> bool) -> f64 {
    let (width, height) = picture.dimensions();
    let distance = |Rgb(a): Rgb<u8>, Rgb(b): Rgb<u8>| -> i64 {
        a.into_iter().zip(b).map(|(a, b)| (i64::from(a) - i64::from(b)).pow(2)).sum()
    };
    let (mut both, mut either) = (0, 0);
    for (x, y, &pixel) in picture.enumerate_pixels() {
        let from_middle =
            |at: u32, side: u32| (f64::from(at) + 0.5 - f64::from(side) / 2.0) / f64::from(width.min(height));
        let wanted = drawn(from_middle(x, width), from_middle(y, height));
        let found = distance(pixel, object) < distance(pixel, background);
        both += u32::from(wanted && found);
        either += u32::from(wanted || found);
    }
    f64::from(both) / f64::from(either)
}

#[sqlx::test]
async fn shapes_are_whole_at_every_size(pool: PgPool) {
    let (folder, url) = (TestFolder::new(), url_of(&pool));
    let server = Program::serve_demo(&folder.0, &url);
    let client = Client::of(&server, &folder.0);
    // Extents as in `tools/demo-model/scenes.py`.
    type Case = (&'static str, Rgb<u8>, Rgb<u8>, fn(f64, f64) -> bool);
    let circle: Case = ("a red circle on a blue background", RED, BLUE, |x, y| x.hypot(y) < 0.21);
    let square: Case = ("a large green square, white backdrop", GREEN, WHITE, |x, y| x.abs().max(y.abs()) < 0.264);
    let diamond: Case = ("a big yellow diamond on black", YELLOW, BLACK, |x, y| x.abs() * 1.35 + y.abs() < 0.33);
    let cases = [
        (circle, 256, 256, 0.9),
        (square, 256, 256, 0.9),
        (circle, 512, 512, 0.8),
        (square, 512, 512, 0.8),
        (diamond, 512, 512, 0.8),
        (circle, 384, 384, 0.8),
        (square, 512, 384, 0.6),
        (diamond, 320, 448, 0.6),
    ];
    for (seed, ((prompt, object, background, drawn), width, height, least)) in cases.into_iter().enumerate() {
        let what = format!("{prompt}, {width} x {height}");
        let (_, picture) =
            draw(&client, &json!({"prompt": prompt, "width": width, "height": height, "seed": seed})).await;
        assert_eq!(picture.dimensions(), (width, height));
        assert_shows(&picture, object, background, &what);
        let overlap = overlap(&picture, object, background, drawn);
        assert!(overlap >= least, "{what}: {overlap:.2} of the shape");
    }
}

#[sqlx::test]
async fn it_never_passes_for_the_model_whose_place_it_takes(pool: PgPool) {
    let (folder, url) = (TestFolder::new(), url_of(&pool));
    let server = Program::serve_demo(&folder.0, &url);
    let client = Client::of(&server, &folder.0);
    let input = json!({"prompt": "a star"});
    let answer = client.post(60, &input).await.unwrap();
    assert_eq!(answer.headers()["fourstep-model"], "fourstep/demo-4step");
    let prediction: Value = answer.json().await.unwrap();
    assert_eq!(prediction["model"], "fourstep/demo-4step");
    let logs = prediction["logs"].as_str().unwrap();
    assert!(logs.contains("The weights of sdxl-lightning-4step are not here; demo-4step stands in for it"), "{logs}");
}

#[sqlx::test]
async fn a_prediction_says_what_of_its_prompt_was_cut_and_that_nobody_checked_its_picture(pool: PgPool) {
    let (folder, url) = (TestFolder::new(), url_of(&pool));
    let server = Program::serve_demo(&folder.0, &url);
    let client = Client::of(&server, &folder.0);
    let prompt = format!("a red circle on a blue background, {}unheard", "very ".repeat(80));
    let (prediction, _) = draw(&client, &json!({"prompt": prompt, "seed": 1})).await;
    let logs = prediction["logs"].as_str().unwrap();
    assert!(logs.contains("the prompt is longer than the 75 tokens the model reads"), "{logs}");
    assert!(logs.contains("very unheard"), "{logs}");
    assert_eq!(prediction["safety"], "unavailable");
    assert!(logs.contains("the images were not checked"), "{logs}");
}

/// Makes what a word means to the first text encoder no number.
fn poison(weights: &Path, word: &str) {
    let vocabulary = std::fs::read(weights.join("tokenizer/vocab.json")).unwrap();
    let vocabulary: Value = serde_json::from_slice(&vocabulary).unwrap();
    let token = vocabulary[format!("{word}</w>")].as_u64().unwrap() as usize;

    let path = weights.join("text_encoder/model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let header_length = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + header_length]).unwrap();
    let tensors = header.as_object().unwrap();
    let (_, table) = tensors.iter().find(|(name, _)| name.ends_with("token_embedding.weight")).unwrap();
    let (width, start) = (table["shape"][1].as_u64().unwrap(), table["data_offsets"][0].as_u64().unwrap());
    // In f16, these bytes are not a number.
    let row = 2 * width as usize;
    let begin = 8 + header_length + start as usize + token * row;
    bytes[begin..begin + row].fill(0xFF);
    std::fs::write(&path, bytes).unwrap();
}

#[sqlx::test]
async fn numbers_that_are_not_finite_are_a_failed_prediction_that_costs_nothing(pool: PgPool) {
    let (folder, url) = (TestFolder::new(), url_of(&pool));
    let weights = demo::unpack(&folder.0).unwrap();
    poison(&weights, "star");
    let server = Program::serve_model(&folder.0, &url, &["--weights", weights.to_str().unwrap()]);
    let client = Client::of(&server, &folder.0);
    let input = json!({"prompt": "a star", "width": 256, "height": 256});
    let created: Value = client.post(1, &input).await.unwrap().json().await.unwrap();
    let prediction = client.terminal(created["id"].as_str().unwrap()).await;
    assert_eq!((&prediction["status"], &prediction["output"]), (&json!("failed"), &Value::Null), "{prediction}");
    assert_eq!(prediction["error"], "the UNet produced values that are not finite");
    assert_eq!(prediction["metrics"]["cost"], 0.0, "{prediction}");
}

#[test]
fn it_takes_nobodys_place_where_the_weights_are_required() {
    let folder = TestFolder::new();
    let output = Command::new(env!("CARGO_BIN_EXE_fourstep"))
        .args(["serve", "--listen", "127.0.0.1:0", "--require-weights", "--data-dir"])
        .arg(&folder.0)
        .env("HF_HOME", folder.0.join("hub"))
        .env_remove("HF_HUB_CACHE")
        .output()
        .unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(complaint.contains("the weights of sdxl-lightning-4step are not here: `fourstep pull`"), "{complaint}");
}

#[sqlx::test]
async fn an_image_gives_way_to_a_new_prompt_as_far_as_it_is_asked_to(pool: PgPool) {
    let (folder, url) = (TestFolder::new(), url_of(&pool));
    let server = Program::serve_demo(&folder.0, &url);
    let client = Client::of(&server, &folder.0);
    let (drawn, start) = draw(&client, &json!({"prompt": "a red circle on a blue background", "seed": 1})).await;
    let png = client.fetch(drawn["output"][0].as_str().unwrap()).await.unwrap();
    let image = format!("data:image/png;base64,{}", BASE64_STANDARD.encode(png));
    let mut input = json!({
        "prompt": "a yellow square on a purple background", "image": image, "num_inference_steps": 10, "seed": 2,
    });

    // A little: everything stays where it is, and what is red is less so.
    input["prompt_strength"] = 0.3.into();
    let (_, little) = draw(&client, &input).await;
    let is_object = |Rgb([red, _, blue]): &Rgb<u8>| red > blue;
    let object: Vec<(u32, u32)> =
        start.enumerate_pixels().filter(|(.., pixel)| is_object(pixel)).map(|(x, y, _)| (x, y)).collect();
    let kept = object.iter().filter(|(x, y)| is_object(little.get_pixel(*x, *y))).count();
    assert!(kept * 10 >= object.len() * 9, "{kept} of {} pixels are still the object's", object.len());
    let green = |picture: &RgbImage| {
        object.iter().map(|(x, y)| usize::from(picture.get_pixel(*x, *y).0[1])).sum::<usize>() / object.len()
    };
    assert!(green(&little) >= green(&start) + 8, "from {} to {}, toward yellow", green(&start), green(&little));

    // Much: the new prompt.
    input["prompt_strength"] = 0.8.into();
    assert_shows(&draw(&client, &input).await.1, YELLOW, PURPLE, "strength 0.8");
}
