//! An input as it came, which is kept, shown in every answer, and told to webhooks: how much of that there may be.

use serde_json::Value;

use super::InvalidInput;

/// Of an input as it came, bytes of JSON beside what has a limit of its own.
const MAX_BYTES: usize = 64 << 10;
/// These have one, in characters.
const PROMPTS: [&str; 2] = ["prompt", "negative_prompt"];
/// Unknown fields that are named in the logs.
const MOST_NOTED: usize = 10;
/// Of each one's name, characters.
const NAME_NOTED: usize = 64;

/// Refuses an input that is too long to be kept; its image must have been taken out of it.
pub fn check_raw_input(raw: &Value) -> Result<(), InvalidInput> {
    let fields = raw.as_object().into_iter().flatten().filter(|(name, _)| !PROMPTS.contains(&name.as_str()));
    let bytes: usize = fields.map(|field| serde_json::to_string(&field).map_or(0, |json| json.len())).sum();
    if bytes <= MAX_BYTES {
        return Ok(());
    }
    let reason =
        format!("must be at most {MAX_BYTES} bytes of JSON beside the prompts and the image; unknown fields count");
    Err(InvalidInput::one("input", reason))
}

/// Log lines about unknown fields: at most ten of them, each name cut to 64 characters, and one that counts the others.
pub(super) fn notes_on(unknown: &[&String]) -> Vec<String> {
    let cut = |name: &str| match name.char_indices().nth(NAME_NOTED) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    };
    let named = unknown.iter().take(MOST_NOTED).map(|name| format!("Ignored unknown field {:?}", cut(name)));
    let more = unknown.len().saturating_sub(MOST_NOTED);
    named.chain((more > 0).then(|| format!("Further unknown fields ignored: {more}"))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn everything_but_the_prompts_counts() {
        let text = |length| "x".repeat(length);
        for (raw, is_kept) in [
            (json!({"prompt": text(100_000), "negative_prompt": text(100_000)}), true),
            (json!({"lora": text(60_000)}), true),
            (json!({"lora": text(70_000)}), false),
            (json!({"a": text(40_000), "b": [{"c": text(40_000)}]}), false),
            (json!({text(70_000): null}), false),
            (json!(null), true),
        ] {
            assert_eq!(check_raw_input(&raw).is_ok(), is_kept);
        }
    }

    #[test]
    fn a_few_unknown_fields_are_named_and_the_others_counted() {
        let names: Vec<String> = ["ä".repeat(65)].into_iter().chain((1..12).map(|number| number.to_string())).collect();
        let unknown: Vec<&String> = names.iter().collect();
        assert_eq!(notes_on(&unknown[..1]), [format!("Ignored unknown field \"{}…\"", "ä".repeat(64))]);
        assert_eq!(notes_on(&unknown[..10]).len(), 10);
        assert_eq!(notes_on(&unknown)[10..], ["Further unknown fields ignored: 2"]);
    }
}
