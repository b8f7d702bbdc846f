//! What a server says when it is ready: to a program one line, to a person everything for the first picture.

use std::{net::SocketAddr, path::Path};

use fourstep::{app::Ready, config::Config};
use sd_notify::NotifyState;

use super::terminal::{self, quoted};

/// Says on standard output that the server or the workers are ready, and to systemd where that waits to be told.
pub(crate) fn say(config: &Config, ready: &Ready) {
    let text = match &ready.url {
        Some(url) if terminal::stdout_is_terminal() => welcome(&config.data.dir, url, ready),
        _ => ready_line(ready),
    };
    if let Err(error) = terminal::print(&text) {
        tracing::warn!(%error, "Could not say on standard output that everything is ready");
    }
    if let Err(error) = sd_notify::notify(&[NotifyState::Ready]) {
        tracing::warn!(%error, "Could not tell systemd that everything is ready");
    }
}

/// The line that programs wait for. A server's contains its URL.
fn ready_line(ready: &Ready) -> String {
    match &ready.url {
        Some(url) => format!("fourstep is ready at {url}\n"),
        None => "fourstep workers are ready\n".to_owned(),
    }
}

/// The ready line, and around it what a person needs to go on.
fn welcome(data_dir: &Path, url: &str, ready: &Ready) -> String {
    // The key's file and not the key: what is shown here is copied, shared and kept.
    let (kept, key) = match &ready.key_file {
        Some(file) => (file.display().to_string(), format!("$(cat {})", quoted(file))),
        None => ("one of yours; `fourstep keys create --name NAME` makes another".to_owned(), "$KEY".to_owned()),
    };
    let data = data_dir.display().to_string();
    let page = playground(url, ready.key_file.as_deref());
    let rows =
        [("page", &page), ("data", &data), ("database", &ready.database), ("model", &ready.model), ("key", &kept)];
    let rows: String = rows.iter().map(|(name, value)| format!("  {name:<9} {value}\n")).collect();
    let (ready, picture) = (ready_line(ready), first_picture(url, &key));
    format!("\n{rows}\n{ready}\nA first picture, into picture.png:\n\n{picture}\n")
}

/// The page, and on this machine with the first key in its fragment, which no browser sends anywhere: the page takes it
/// out of the address when it opens.
fn playground(url: &str, key_file: Option<&Path>) -> String {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    let is_here = authority.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback());
    match key_file.filter(|_| is_here).and_then(|file| std::fs::read_to_string(file).ok()) {
        Some(key) => format!("{url}/#key={}", key.trim()),
        None => url.to_owned(),
    }
}

/// Makes a picture, waits for it and stores it, with nothing but what every machine has.
fn first_picture(url: &str, key: &str) -> String {
    format!(
        r#"curl -sS {url}/predictions -H "Authorization: Bearer {key}" \
  -H 'Content-Type: application/json' -H 'Prefer: wait' \
  -d '{{"input": {{"prompt": "a red circle on a blue background"}}}}' \
  | grep -o 'http[^"]*\.png' | xargs curl -sS -o picture.png
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(key_file: Option<&str>) -> Ready {
        Ready {
            url: Some("http://127.0.0.1:8000".to_owned()),
            key_file: key_file.map(Into::into),
            database: "private Postgres".to_owned(),
            model: "demo-4step".to_owned(),
        }
    }

    #[test]
    fn the_curl_line_is_one_command_for_the_shell() {
        let shown = welcome(Path::new("/srv/my data"), "http://127.0.0.1:8000", &ready(Some("/srv/my data/key")));
        assert!(shown.contains(r#"-H "Authorization: Bearer $(cat '/srv/my data/key')" \"#), "{shown}");
        assert!(shown.contains("\nfourstep is ready at http://127.0.0.1:8000\n"), "{shown}");
    }

    #[test]
    fn who_manages_keys_is_not_sent_to_a_file_that_is_not_there() {
        let shown = welcome(Path::new("/data"), "http://127.0.0.1:8000", &ready(None));
        assert!(shown.contains("Bearer $KEY\"") && shown.contains("fourstep keys create"), "{shown}");
    }

    #[test]
    fn the_page_is_offered_with_its_key_on_this_machine_and_nowhere_else() {
        let file = std::env::temp_dir().join(format!("fourstep-key-{}", uuid::Uuid::new_v4()));
        std::fs::write(&file, "fs_abc\n").expect("a file");
        assert_eq!(playground("http://127.0.0.1:8000", Some(&file)), "http://127.0.0.1:8000/#key=fs_abc");
        assert_eq!(playground("http://[::1]:8000", Some(&file)), "http://[::1]:8000/#key=fs_abc");
        for elsewhere in ["http://192.168.0.7:8000", "https://example.com"] {
            assert_eq!(playground(elsewhere, Some(&file)), elsewhere);
        }
        std::fs::remove_file(&file).expect("removed");
        assert_eq!(playground("http://127.0.0.1:8000", Some(&file)), "http://127.0.0.1:8000");
    }

    #[test]
    fn workers_alone_are_ready_without_a_url() {
        let workers = Ready { url: None, ..ready(None) };
        assert_eq!(ready_line(&workers), "fourstep workers are ready\n");
    }
}
