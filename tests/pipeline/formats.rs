//! The files `fourstep generate` writes.

use std::{fs, process::Command};

use fourstep::picture;

use crate::support::{Folder, fixtures, largest_difference};

/// Draws into a file of this name and returns its bytes, or what was said instead.
fn generate(name: &str, arguments: &[&str]) -> Result<Vec<u8>, String> {
    let folder = Folder::new();
    let out = folder.0.join(name);
    let finished = Command::new(env!("CARGO_BIN_EXE_fourstep"))
        .args(["generate", "--prompt", "a cat", "--seed", "7", "--num-inference-steps", "2", "--width", "64"])
        .args(["--height", "40", "--weights"])
        .arg(fixtures().join("other"))
        .args(arguments)
        .arg("--out")
        .arg(&out)
        .output()
        .unwrap();
    if finished.status.success() {
        Ok(fs::read(out).unwrap())
    } else {
        Err(String::from_utf8(finished.stderr).unwrap())
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    let utf_16: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
    [text.as_bytes(), &utf_16].iter().any(|text| bytes.windows(text.len()).any(|window| window == *text))
}

#[test]
fn the_ending_of_the_name_decides_the_format() {
    let png = picture::read(&generate("cat.PNG", &[]).unwrap()).unwrap();
    for (name, head, levels) in
        [("cat.webp", &b"RIFF"[..], 0), ("cat.jpg", b"\xFF\xD8", 80), ("a.b.jpeg", b"\xFF\xD8", 80)]
    {
        let bytes = generate(name, &["--output-quality", "95"]).unwrap();
        assert!(bytes.starts_with(head), "{name}");
        let difference = largest_difference(&picture::read(&bytes).unwrap(), &png);
        assert!(difference <= levels, "{name} is {difference} levels off");
    }
    let (large, small) =
        (generate("cat.jpg", &["--output-quality", "95"]), generate("cat.jpg", &["--output-quality", "5"]));
    assert!(small.unwrap().len() < large.unwrap().len());
    for name in ["cat.gif", "cat", "png"] {
        let refused = generate(name, &[]).unwrap_err();
        assert!(refused.contains("--out must end in .png, .jpg or .webp"), "{refused}");
    }
}

#[test]
fn a_file_says_how_it_was_made_unless_it_shall_not() {
    for name in ["cat.png", "cat.jpg", "cat.webp"] {
        let bytes = generate(name, &[]).unwrap();
        let line = "a cat\nSteps: 2, Sampler: Euler, Schedule type: SGM Uniform, CFG scale: 0, Seed: 7, Size: 64x40";
        assert!(contains(&bytes, line), "{name}");
        assert!(contains(&bytes, r#""scheduler":"K_EULER""#), "{name}");
        let silent = generate(name, &["--no-metadata"]).unwrap();
        assert!(!contains(&silent, "Steps: 2") && !contains(&silent, "K_EULER"), "{name}");
        assert_eq!(picture::read(&silent), picture::read(&bytes), "{name}");
    }
}
