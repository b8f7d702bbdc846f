//! Reading an input object field by field: coercion, ranges, and what is wrong with each.

use serde_json::{Map, Value};

use super::{ImageSource, Input, InvalidField, OwnFile};

/// Reads fields one by one and collects what is wrong with them. A reader returns `None` for the default.
pub(super) struct Fields<'a> {
    object: &'a Map<String, Value>,
    pub(super) invalid: Vec<InvalidField>,
}

impl<'a> Fields<'a> {
    pub(super) fn of(object: &'a Map<String, Value>) -> Self {
        Self { object, invalid: Vec::new() }
    }

    pub(super) fn refuse(&mut self, name: &str, reason: impl Into<String>) {
        self.invalid.push(InvalidField { field: format!("input.{name}"), reason: reason.into() });
    }

    /// What is said of a field; nothing means the default.
    fn given(&self, name: &'static str) -> Option<&'a Value> {
        Input::given(self.object, name).next().map(|(_, value)| value)
    }

    /// A prompt. The empty string is a prompt.
    pub(super) fn text(&mut self, name: &str, max_characters: usize) -> Option<String> {
        match self.object.get(name)? {
            Value::Null => None,
            Value::String(text) if text.chars().count() > max_characters => {
                self.refuse(name, format!("must be at most {max_characters} characters long"));
                None
            }
            Value::String(text) => Some(text.clone()),
            _ => {
                self.refuse(name, "must be a string");
                None
            }
        }
    }

    pub(super) fn integer(&mut self, name: &'static str, min: u64, max: u64) -> Option<u64> {
        let value = self.given(name)?;
        let integer = as_integer(value);
        if integer.is_none_or(|integer| integer < i128::from(min) || integer > i128::from(max)) {
            self.refuse(name, format!("must be an integer between {min} and {max}"));
            return None;
        }
        integer.and_then(|integer| u64::try_from(integer).ok())
    }

    /// Whether it is this one.
    pub(super) fn is_integer(&self, name: &'static str, integer: i128) -> bool {
        self.given(name).and_then(as_integer) == Some(integer)
    }

    pub(super) fn number(&mut self, name: &'static str, min: f64, max: f64) -> Option<f64> {
        let value = self.given(name)?;
        let number = match value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        let within = number.filter(|number: &f64| (min..=max).contains(number));
        if within.is_none() {
            self.refuse(name, format!("must be a number between {min} and {max}"));
        }
        within
    }

    pub(super) fn boolean(&mut self, name: &'static str) -> Option<bool> {
        let value = self.given(name)?;
        let boolean = match value {
            Value::Bool(boolean) => Some(*boolean),
            Value::Number(number) => number.as_u64().filter(|bit| *bit <= 1).map(|bit| bit == 1),
            Value::String(text) => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "1" => Some(true),
                "false" | "0" => Some(false),
                _ => None,
            },
            _ => None,
        };
        if boolean.is_none() {
            self.refuse(name, "must be true or false");
        }
        boolean
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy, const N: usize>(
        &mut self,
        name: &'static str,
        all: [T; N],
        word: fn(T) -> &'static str,
    ) -> Option<T> {
        let value = self.given(name)?;
        let choice = value.as_str().and_then(|text| all.into_iter().find(|choice| word(*choice) == text));
        if choice.is_none() {
            self.refuse(name, format!("must be one of {}", all.map(word).join(", ")));
        }
        choice
    }

    /// Whether there is an image. It may be megabytes long: nothing here copies it.
    pub(super) fn image(&mut self) -> bool {
        let name = self.name_used("image");
        let form = match self.given(name) {
            None => return false,
            // What names a file of ours is looked for later.
            Some(Value::String(text)) if OwnFile::named_by(text).is_some() => Ok(()),
            Some(Value::String(text)) => ImageSource::parse(text).map(drop),
            Some(_) => Err("must be a string: an https: URL or a data: URI".to_owned()),
        };
        form.map_err(|reason| self.refuse(name, reason)).is_ok()
    }

    /// The name by which the caller gives a field: its own, or another.
    pub(super) fn name_used(&mut self, name: &'static str) -> &'static str {
        let mut given = Input::given(self.object, name).map(|(name, _)| name);
        let used = given.next().unwrap_or(name);
        for other in given.collect::<Vec<_>>() {
            self.refuse(other, format!("is another name of {used}, which is there as well"));
        }
        used
    }
}

/// An integer written as one, as a float without a fraction, or as a string of either.
fn as_integer(value: &Value) -> Option<i128> {
    // Beyond 2^53 a float is no longer sure to be the integer that was meant.
    let from_float =
        |float: f64| (float.fract() == 0.0 && float.abs() <= Input::MAX_EXACT_INTEGER as f64).then_some(float as i128);
    match value {
        Value::Number(number) => number.as_i128().or_else(|| number.as_f64().and_then(from_float)),
        Value::String(text) => {
            let text = text.trim();
            text.parse().ok().or_else(|| text.parse().ok().and_then(from_float))
        }
        _ => None,
    }
}

pub(super) fn contains_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(contains_nul),
        Value::Object(object) => object.iter().any(|(name, value)| name.contains('\0') || contains_nul(value)),
        _ => false,
    }
}
