//! Enums whose variants are words: in the database, in URLs and answers, on the command line.

/// Gives an enum its words, from one list of its variants. One that is left out does not compile.
///
/// - `ALL`: every variant, in the order of the list
/// - `as_str`, `Display`: its word
/// - `FromStr`, `TryFrom<String>`: the variant that has a word, or [`UnknownWord`]
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $word:literal),+ $(,)? }) => {
        impl $name {
            /// Every variant, in order.
            pub const ALL: [Self; [$($word),+].len()] = [$(Self::$variant),+];

            $(#[$doc])*
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::domain::UnknownWord;

            fn from_str(word: &str) -> Result<Self, Self::Err> {
                let known = Self::ALL.into_iter().find(|known| known.as_str() == word);
                known.ok_or_else(|| $crate::domain::words::unknown(word, &[$($word),+]))
            }
        }

        impl TryFrom<String> for $name {
            type Error = $crate::domain::UnknownWord;

            fn try_from(word: String) -> Result<Self, Self::Error> {
                word.parse()
            }
        }
    };
}
pub(super) use words;

/// A word that an enum does not know: somebody's mistake, or stored by a newer version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{word:?} is not one of {}", .known.join(", "))]
pub struct UnknownWord {
    word: String,
    known: &'static [&'static str],
}

pub(super) fn unknown(word: &str, known: &'static [&'static str]) -> UnknownWord {
    UnknownWord { word: word.to_owned(), known }
}

#[cfg(test)]
mod tests {
    use crate::domain::{Period, Status};

    #[test]
    fn every_word_reads_back_and_others_are_told_which_there_are() {
        for status in Status::ALL {
            assert_eq!(status.to_string().parse(), Ok(status));
        }
        let unknown = "week".parse::<Period>().expect_err("no period of ours");
        assert_eq!(unknown.to_string(), r#""week" is not one of day, month"#);
        assert_eq!(Period::try_from("week".to_owned()), Err(unknown));
    }
}
