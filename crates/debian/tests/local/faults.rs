//! Mirrors and networks that fail: what is got all the same, and what is told.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Mutex;
use std::time::Duration;

use block::Digest;
use debian::cache::Cache;
use debian::fetch::{FetchError, Fetcher, Limits, Progress};
use debian::repository::RepositoryError;
use lying_mirror::{Archive, Behaviour, NOW, Server, gone};

use crate::repository::{HEAD, big, load_from, load_noting, packages};

/// What was noted.
#[derive(Default)]
pub(crate) struct Notes(pub(crate) Mutex<Vec<String>>);

impl Progress for Notes {
    fn started(&self, _what: &str, _bytes: Option<u64>) {}
    fn advanced(&self, _bytes: u64) {}
    fn finished(&self, _what: &str) {}
    fn note(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
}

const YEAR: i64 = 365 * 86_400;

/// No patience at all, so that a test need not wait.
fn hurried() -> Fetcher {
    Fetcher::with_limits(Limits {
        silence: Duration::from_millis(1000),
        window: Duration::from_millis(300),
        pause: Duration::from_millis(5),
        ..Limits::default()
    })
}

/// Fetches a file of 1.2 MB from a server that behaves so; also gives what was noted, and how often it was asked for.
fn fetch(behaviour: Behaviour) -> (Result<Vec<u8>, FetchError>, Vec<String>, usize) {
    fetch_file(&big(), behaviour)
}

fn fetch_file(content: &[u8], behaviour: Behaviour) -> (Result<Vec<u8>, FetchError>, Vec<String>, usize) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("big"), content).unwrap();
    let server = Server::start(folder.path(), behaviour);
    let cache_folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(cache_folder.path()).unwrap();
    let (notes, url) = (Notes::default(), format!("{}/big", server.uri));
    let got = hurried().verified(&url, content.len() as u64, Digest::of(content), &cache, &notes);
    assert_eq!(fs::read_dir(cache_folder.path().join("incoming")).unwrap().count(), 0);
    let asked = server.behaviour().asked["big"];
    (got.map(|path| fs::read(path).unwrap()), notes.0.into_inner().unwrap(), asked)
}

fn at_big<T>(value: T) -> BTreeMap<String, T> {
    BTreeMap::from([("big".to_owned(), value)])
}

#[test]
fn a_mirror_that_is_gone_is_named_with_what_to_set() {
    let archive = Archive::new();
    let cache = tempfile::tempdir().unwrap();
    let uri = gone();
    let error = load_from(&archive, &uri, NOW, cache.path()).unwrap_err().to_string();
    for text in [&uri, "after 4 attempts", "refused", "BAKEHOUSE_DEBIAN_MIRROR", "distribution.mirror"] {
        assert!(error.contains(text), "no {text:?} in {error}");
    }
}

#[test]
fn a_server_that_falls_silent_is_left_and_asked_for_the_rest() {
    let (got, notes, asked) =
        fetch(Behaviour { stalls: at_big(400_000), ranges: true, ..Behaviour::default() });
    assert_eq!(got.unwrap(), big());
    assert!(asked >= 3 && notes.iter().any(|note| note.contains("nothing came for 1 s")), "{notes:?}");
    // One that says nothing at all is given up.
    let (got, _, asked) = fetch(Behaviour { stalls: at_big(0), ranges: true, ..Behaviour::default() });
    let error = got.unwrap_err().to_string();
    assert!(error.contains("nothing came") && error.contains("BAKEHOUSE_DEBIAN_MIRROR"), "{error}");
    assert_eq!(asked, 4);
}

#[test]
fn a_server_that_drips_is_as_good_as_silent() {
    let drips = at_big(Duration::from_millis(40));
    // It would all be there after a while.
    let (got, _, _) = fetch_file(&[7; 200], Behaviour { drips, ..Behaviour::default() });
    let error = got.unwrap_err().to_string();
    assert!(error.contains("bytes came in") && error.contains("/big: "), "{error}");
}

#[test]
fn a_download_may_break_off_often_as_long_as_it_gets_further() {
    let cut_after = || vec![100_000; 11];
    let (got, _, asked) = fetch(Behaviour { cut_after: cut_after(), ranges: true, ..Behaviour::default() });
    assert_eq!((got.unwrap(), asked), (big(), 12));
    // A server without ranges begins anew each time: that leads nowhere.
    let (got, _, asked) = fetch(Behaviour { cut_after: cut_after(), ..Behaviour::default() });
    assert!(matches!(got, Err(FetchError::Failed { .. })), "{got:?}");
    assert!(asked <= 5, "{asked}");
}

#[test]
fn a_file_that_is_too_short_is_told_with_both_lengths() {
    let (got, _, _) = fetch(Behaviour { truncated: at_big(1000), ..Behaviour::default() });
    let error = got.unwrap_err().to_string();
    assert!(error.contains("1000 of 1200000 bytes came"), "{error}");
}

#[test]
fn other_bytes_of_the_same_length_are_told_with_both_hashes() {
    let lies = at_big(vec![7; 1_200_000]);
    let (got, _, asked) = fetch(Behaviour { lies, ..Behaviour::default() });
    let error = got.unwrap_err();
    assert!(matches!(error, FetchError::Mismatch(_)), "{error}");
    let error = error.to_string();
    assert!(error.contains(&Digest::of(&big()).to_hex()) && error.contains("use another mirror"), "{error}");
    assert_eq!(asked, 2, "once more from the start: it may have been a stale copy");
}

fn head(date: &str, until: Option<&str>) -> String {
    let until = until.map_or_else(String::new, |until| format!("Valid-Until: {until}\n"));
    format!("Suite: test\nDate: {date}\n{until}Components: main\n")
}

#[test]
fn a_mirror_that_goes_back_in_time_is_noticed() {
    let (old, new) = ("Sun, 01 Jun 2025 00:00:00 UTC", "Mon, 02 Jun 2025 00:00:00 UTC");
    let archive = Archive::new();
    let cache = tempfile::tempdir().unwrap();
    let load = |now| {
        let notes = Notes::default();
        let loaded = load_noting(&archive, &archive.uri(), now, cache.path(), &notes);
        (loaded, notes.0.into_inner().unwrap())
    };
    let day = 86_400;
    let newer = packages().replace("1.0+b1-1", "1.1");
    archive.suite("test", &head(new, Some("Mon, 09 Jun 2025 00:00:00 UTC")), &newer);
    load(NOW + 2 * day).0.unwrap();
    // The older index is as well signed, and as valid.
    archive.suite("test", &head(old, None), &packages());
    let (loaded, notes) = load(NOW + 2 * day);
    let (universe, sources) = loaded.unwrap();
    assert_eq!(universe.version(universe.versions_of("a")[0]), "1.1");
    assert_eq!(sources[0].date, NOW + day);
    let told = notes.join("\n");
    for text in ["/dists/test/InRelease", "2025-06-01", "older than the one of 2025-06-02", "remove "] {
        assert!(told.contains(text), "no {text:?} in {told}");
    }
    // When the newer one has expired, there is none that counts.
    let error = load(NOW + 30 * day).0.unwrap_err();
    assert!(matches!(&error, RepositoryError::Rollback { .. }), "{error}");
    let note = cache.path().join("notes");
    assert!(error.to_string().contains(&format!("remove {}", note.display())), "{error}");
    // Whoever means it can have it, and a note that is damaged counts for nothing.
    for entry in fs::read_dir(note).unwrap() {
        fs::write(entry.unwrap().path(), "damaged").unwrap();
    }
    assert_eq!(load(NOW + 2 * day).0.unwrap().1[0].date, NOW);
    // Going forwards is what mirrors do.
    archive.suite("test", &head(new, None), &newer);
    let (loaded, notes) = load(NOW + 2 * day);
    assert_eq!((loaded.unwrap().1[0].date, notes), (NOW + day, Vec::new()));
}

#[test]
fn a_clock_that_is_years_off_is_suspected() {
    let archive = Archive::new();
    archive.suite("test", HEAD, &packages());
    for (now, shown) in [(NOW - 10 * YEAR, "2015-06-04"), (NOW + 20 * YEAR, "2045-05-27")] {
        let cache = tempfile::tempdir().unwrap();
        let error = load_from(&archive, &archive.uri(), now, cache.path()).unwrap_err().to_string();
        let advice = format!("This machine's clock says {shown}");
        assert!(error.contains(&advice) && error.contains("set it right"), "{error}");
    }
}
