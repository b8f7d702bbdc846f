//! Under which paths the faces are. The native one is at the root.

use crate::domain::Dialect;

/// Replicate's.
pub const REPLICATE: &str = "/replicate/v1";
/// Eachlabs'.
pub const EACHLABS: &str = "/eachlabs/v1";
/// OpenAI's.
pub const OPENAI: &str = "/openai/v1";
/// All three vendors', for clients that are given only the server.
pub const SHARED: &str = "/v1";
/// Replicate's again: some of its clients add `/v1` to what they are given.
pub const DOUBLED: &str = "/v1/v1";

/// Every path that a vendor's face is under.
pub const ALL: [&str; 5] = [SHARED, DOUBLED, REPLICATE, EACHLABS, OPENAI];

/// The path that a face has for itself.
pub const fn own(face: Dialect) -> &'static str {
    match face {
        Dialect::Native => "",
        Dialect::Replicate => REPLICATE,
        Dialect::Eachlabs => EACHLABS,
        Dialect::OpenAi => OPENAI,
    }
}

/// The other paths it is under.
pub const fn others(face: Dialect) -> &'static [&'static str] {
    match face {
        Dialect::Native => &[],
        Dialect::Replicate => &[SHARED, DOUBLED],
        Dialect::Eachlabs | Dialect::OpenAi => &[SHARED],
    }
}

/// What is below a path; `None` for what is elsewhere.
pub fn below<'a>(mount: &str, path: &'a str) -> Option<&'a str> {
    path.strip_prefix(mount).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The vendor's face whose own path, as far as its name, this one is below: `/replicate/v2` is Replicate's as well.
pub fn named_by(path: &str) -> Option<Dialect> {
    let named = |face: &Dialect| own(*face).strip_suffix(SHARED).is_some_and(|name| below(name, path).is_some());
    Dialect::ALL.into_iter().find(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_of_a_face_is_among_all() {
        let of_face = |face| std::iter::once(own(face)).chain(others(face).iter().copied());
        let of_faces = Dialect::ALL.into_iter().flat_map(of_face);
        let mut of_faces: Vec<&str> = of_faces.filter(|path| !path.is_empty()).collect();
        of_faces.sort_unstable();
        of_faces.dedup();
        let mut all = ALL;
        all.sort_unstable();
        assert_eq!(of_faces, all);
    }

    #[test]
    fn a_face_is_named_by_the_first_part_of_a_path() {
        for face in Dialect::ALL {
            let named = named_by(own(face));
            assert_eq!(named, (face != Dialect::Native).then_some(face));
        }
        assert_eq!(named_by("/replicate"), Some(Dialect::Replicate));
        for path in ["", "/", "/v1", "/v1/prediction", "/replicated/v1", "/predictions/eachlabs"] {
            assert_eq!(named_by(path), None, "{path}");
        }
    }
}
