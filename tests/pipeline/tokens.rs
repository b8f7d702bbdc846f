//! Token ids: exact, for CLIP's whole vocabulary.

use std::{fs, path::Path};

use fourstep::pipeline::tokenizer::Tokenizer;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::support::{Folder, Golden, fixtures};

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
    ids_2: Vec<u32>,
}

/// A tokenizer with CLIP's own merges and this padding token.
fn clip(folder: &Folder, pad_token: &str) -> Tokenizer {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let merges = fs::read_to_string(root.join("assets/demo/tokenizer/merges.txt")).unwrap();
    let printable = |byte: &u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let bytes: Vec<String> = (0..256)
        .filter(printable)
        .chain(256..256 + (0..256).filter(|byte| !printable(byte)).count() as u32)
        .map(|character| char::from_u32(character).unwrap().to_string())
        .collect();
    let words = bytes.iter().map(|byte| format!("{byte}</w>"));
    let merged = merges.lines().skip(1).map(|merge| merge.replace(' ', ""));
    let special = ["<|startoftext|>", "<|endoftext|>"].map(String::from);
    let tokens = bytes.iter().cloned().chain(words).chain(merged).chain(special);
    let vocabulary: Map<String, Value> = tokens.zip(0..).map(|(token, id)| (token, Value::from(id))).collect();
    let special = |content: &str| json!({ "content": content, "normalized": true });
    let map = json!({
        "bos_token": special("<|startoftext|>"),
        "eos_token": special("<|endoftext|>"),
        "unk_token": special("<|endoftext|>"),
        "pad_token": pad_token,
    });
    fs::write(folder.0.join("vocab.json"), Value::from(vocabulary).to_string()).unwrap();
    fs::write(folder.0.join("merges.txt"), merges).unwrap();
    fs::write(folder.0.join("special_tokens_map.json"), map.to_string()).unwrap();
    Tokenizer::load(&folder.0).unwrap()
}

#[test]
fn ids_are_those_of_transformers_for_two_hundred_texts() {
    let cases: Vec<Case> = serde_json::from_str(&fs::read_to_string(fixtures().join("tokens.json")).unwrap()).unwrap();
    assert_eq!(cases.len(), 200);
    let (folder, folder_2) = (Folder::new(), Folder::new());
    let (tokenizer, tokenizer_2) = (clip(&folder, "<|endoftext|>"), clip(&folder_2, "!"));
    let mut wrong = Vec::new();
    for Case { text, mut ids, mut ids_2 } in cases {
        ids.resize(77, 49407);
        ids_2.resize(77, 0);
        for (expected, tokenizer) in [(ids, &tokenizer), (ids_2, &tokenizer_2)] {
            let found = tokenizer.encode(&text).unwrap().ids;
            if found != expected {
                wrong.push(format!("{text:?}\n found    {found:?}\n expected {expected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} texts differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_models_own_folders_give_the_ids_of_transformers() {
    let golden = Golden::load();
    for (folder, name) in [("tokenizer", "ids"), ("tokenizer_2", "ids_2")] {
        let tokenizer = Tokenizer::load(&fixtures().join("tiny").join(folder)).unwrap();
        let found = tokenizer.encode("a photo! of the man and his cats, it's 🙂").unwrap().ids;
        let expected: Vec<u32> = golden.get(name).to_vec1::<i32>().unwrap().into_iter().map(|id| id as u32).collect();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn what_does_not_fit_is_told_in_the_callers_words() {
    let folder = Folder::new();
    let tokenizer = clip(&folder, "<|endoftext|>");
    let text = format!("{}Pumpkins and  Spice", "cat ".repeat(75));
    let tokens = tokenizer.encode(&text).unwrap();
    let truncated = tokens.truncated.unwrap();
    assert_eq!(truncated.text, "Pumpkins and  Spice");
    assert_eq!(truncated.tokens, 3);
    assert_eq!((tokens.ids.len(), tokens.ids[75], tokens.ids[76]), (77, 2368, 49407), "the end token is kept");
    assert_eq!(tokenizer.encode(&"cat ".repeat(75)).unwrap().truncated, None, "75 tokens fit exactly");
}
