//! What a key may do.

use std::{fmt, str::FromStr};

use super::{UnknownWord, words::words};

/// In the logs of a prediction whose caller has not [`Scope::SafetyDisable`] and is served all the same.
pub const CHECKER_KEPT: &str = "The safety checker stays on: this API key does not have the scope safety:disable";

/// One thing that keys may be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Create and cancel predictions.
    PredictionsWrite,
    /// Read predictions and models.
    PredictionsRead,
    /// Read what was used and what it cost.
    UsageRead,
    /// Make and end keys and accounts, and be served before others. Its rate is not limited.
    Admin,
    /// Turn the safety checker off.
    SafetyDisable,
}

words! {
    /// The word in the database, on the command line and in answers.
    Scope {
        PredictionsWrite = "predictions:write",
        PredictionsRead = "predictions:read",
        UsageRead = "usage:read",
        Admin = "admin",
        SafetyDisable = "safety:disable",
    }
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// Everything, as the first key has it.
    pub const ALL: Self = Self(0b1_1111);
    /// What a key is for, unless it is made for something else: predictions, and what they cost.
    pub const USUAL: Self = Self(0b0_0111);

    /// Whether this scope is among them.
    pub const fn contains(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8) != 0
    }

    /// The scopes, in order.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.contains(*scope))
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |set, scope| set | 1 << scope as u8))
    }
}

/// The words with commas between them.
impl fmt::Display for Scopes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> = self.iter().map(Scope::as_str).collect();
        formatter.write_str(&words.join(","))
    }
}

impl FromStr for Scopes {
    type Err = UnknownWord;

    /// Words with commas between them, or `all`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "all" {
            return Ok(Self::ALL);
        }
        text.split(',').map(|word| word.trim().parse::<Scope>()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_read_back_as_they_were_written() {
        for scopes in [Scopes::ALL, Scopes::USUAL, Scopes::from_iter([Scope::Admin])] {
            assert_eq!(scopes.to_string().parse(), Ok(scopes));
        }
        assert_eq!("all".parse(), Ok(Scopes::ALL));
        assert!(Scopes::USUAL.contains(Scope::UsageRead) && !Scopes::USUAL.contains(Scope::Admin));
        let refusal = "predictions:wirte".parse::<Scopes>().expect_err("misspelled").to_string();
        assert!(refusal.contains("predictions:write,"), "{refusal}");
    }
}
