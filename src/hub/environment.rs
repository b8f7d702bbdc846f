//! What the environment says about the hub: where its cache is, which host, which token, whether to go there at all.
//!
//! The variables and their precedence are those of Python's `huggingface_hub` (`constants.py`), so that one setting
//! serves both. Reads no variable and no file itself: the program passes the variables in.

use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
};

use super::Error;

const HUGGING_FACE: &str = "https://huggingface.co";

/// The settings that Python's `huggingface_hub` and this program share.
#[derive(Clone, Debug)]
pub struct Environment {
    /// `HF_HUB_CACHE`, else `HUGGINGFACE_HUB_CACHE`, else `hub` in `HF_HOME`.
    pub cache: PathBuf,
    /// Where the folders of whole models are made.
    pub models: PathBuf,
    /// `HF_ENDPOINT` without a slash at its end: the hub or a mirror of it.
    pub endpoint: String,
    /// `HF_TOKEN`, unless `HF_HUB_DISABLE_IMPLICIT_TOKEN` forbids to send one.
    pub token: Option<Token>,
    /// `HF_TOKEN_PATH`, else `token` in `HF_HOME`: read when no token is given. `None` where it must not be.
    pub token_file: Option<PathBuf>,
    /// `HF_HUB_OFFLINE`: use what is here and ask nobody.
    pub offline: bool,
}

/// A secret of the user's, which no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Trims what files and shells leave around a token; `None` if nothing is left.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

impl Environment {
    /// Reads the variables. An empty one counts as not set, as compose files spell it.
    pub fn from_variables(variables: impl IntoIterator<Item = (String, String)>) -> Result<Self, Error> {
        let variables: HashMap<String, String> =
            variables.into_iter().filter(|(_, value)| !value.trim().is_empty()).collect();
        let value = |name: &str| variables.get(name).map(String::as_str);
        let flag = |name: &str| value(name).is_some_and(is_true);
        let user = value("HOME").map(PathBuf::from);
        let folder = |name: &str| value(name).map(|text| expand(text, user.as_deref()));

        let home = folder("HF_HOME")
            .or_else(|| folder("XDG_CACHE_HOME").map(|caches| caches.join("huggingface")))
            .or_else(|| user.as_ref().map(|home| home.join(".cache/huggingface")));
        let named = folder("HF_HUB_CACHE").or_else(|| folder("HUGGINGFACE_HUB_CACHE"));
        // A cache that was named may be a volume of its own, and what is beside it not ours to write to. Elsewhere the
        // folders stand beside the cache, where Python's tools do not take them for a broken repository.
        let (cache, models) = match (named, &home) {
            (Some(cache), Some(home)) if cache == home.join("hub") => (cache, home.join("fourstep")),
            (Some(cache), _) => (cache.clone(), cache.join("fourstep")),
            (None, Some(home)) => (home.join("hub"), home.join("fourstep")),
            (None, None) => return Err(Error::NoCacheFolder),
        };
        let absolute = |path: PathBuf| {
            std::path::absolute(&path).map_err(|source| Error::Folder { path: path.display().to_string(), source })
        };
        let implicit = !flag("HF_HUB_DISABLE_IMPLICIT_TOKEN");
        let token_file = folder("HF_TOKEN_PATH").or_else(|| home.as_ref().map(|home| home.join("token")));
        Ok(Self {
            cache: absolute(cache)?,
            models: absolute(models)?,
            endpoint: value("HF_ENDPOINT").unwrap_or(HUGGING_FACE).trim().trim_end_matches('/').to_owned(),
            token: value("HF_TOKEN").and_then(Token::new).filter(|_| implicit),
            token_file: token_file.filter(|_| implicit),
            offline: flag("HF_HUB_OFFLINE") || flag("TRANSFORMERS_OFFLINE"),
        })
    }
}

/// As Python reads a flag; everything else is no.
fn is_true(value: &str) -> bool {
    ["1", "ON", "YES", "TRUE"].iter().any(|yes| value.eq_ignore_ascii_case(yes))
}

fn expand(path: &str, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix('~'), home) {
        (Some(""), Some(home)) => home.to_owned(),
        (Some(rest), Some(home)) if rest.starts_with('/') => home.join(rest.trim_start_matches('/')),
        _ => PathBuf::from(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Environment {
        Environment::from_variables(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
            .expect("a cache folder")
    }

    #[test]
    fn the_cache_is_where_python_looks_for_it() {
        let home = ("HOME", "/home/ada");
        type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, &'a str);
        let cases: [Case<'_>; 7] = [
            (&[home], "/home/ada/.cache/huggingface/hub", "/home/ada/.cache/huggingface/fourstep"),
            (&[home, ("XDG_CACHE_HOME", "/caches")], "/caches/huggingface/hub", "/caches/huggingface/fourstep"),
            (&[home, ("XDG_CACHE_HOME", "/caches"), ("HF_HOME", "/hf")], "/hf/hub", "/hf/fourstep"),
            (&[home, ("HF_HOME", "~/hf")], "/home/ada/hf/hub", "/home/ada/hf/fourstep"),
            (&[("HUGGINGFACE_HUB_CACHE", "/old")], "/old", "/old/fourstep"),
            (&[("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HUB_CACHE", "/new")], "/new", "/new/fourstep"),
            (&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/hf/hub")], "/hf/hub", "/hf/fourstep"),
        ];
        for (variables, cache, models) in cases {
            let environment = read(variables);
            assert_eq!((environment.cache, environment.models), (cache.into(), models.into()), "{variables:?}");
        }
        assert!(matches!(Environment::from_variables([]), Err(Error::NoCacheFolder)));
    }

    #[test]
    fn a_token_comes_from_the_variable_or_the_file_unless_that_is_forbidden() {
        let environment = read(&[("HF_HOME", "/hf"), ("HF_TOKEN", " hf_secret\n")]);
        assert_eq!(environment.token.as_ref().map(Token::expose), Some("hf_secret"));
        assert_eq!(environment.token_file, Some("/hf/token".into()));
        assert!(!format!("{environment:?}").contains("hf_secret"));
        let environment = read(&[("HF_HOME", "/hf"), ("HF_TOKEN_PATH", "/run/secrets/token")]);
        assert_eq!((environment.token, environment.token_file), (None, Some("/run/secrets/token".into())));
        let forbidden = [("HF_HOME", "/hf"), ("HF_TOKEN", "hf_secret"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")];
        let environment = read(&forbidden);
        assert_eq!((environment.token, environment.token_file), (None, None));
    }

    #[test]
    fn the_mirror_and_the_offline_flag_are_read_as_python_reads_them() {
        assert_eq!(read(&[("HF_HOME", "/hf")]).endpoint, "https://huggingface.co");
        assert_eq!(read(&[("HF_HOME", "/hf"), ("HF_ENDPOINT", "http://mirror/hf/")]).endpoint, "http://mirror/hf");
        for (value, offline) in [("1", true), ("true", true), ("Yes", true), ("on", true), ("0", false), ("", false)] {
            assert_eq!(read(&[("HF_HOME", "/hf"), ("HF_HUB_OFFLINE", value)]).offline, offline, "{value:?}");
        }
    }
}
