use std::fs;
use std::path::Path;

use block::Digest;
use debian::cache::Cache;
use debian::download::{DownloadError, FileRequest, download, name_replacements};
use debian::fetch::{FetchError, Fetcher, Progress, Silent};
use debian::mirror::{ChosenBy, Mirrors};
use debian::repository::{LoadOptions, RepositoryError, SourceInfo};
use debian::universe::Universe;
use debian::{Deb, KeyRing, Repository, Request, Version, solve};

use crate::faults::Notes;
use lying_mirror::{Archive, Behaviour, NOW, Server, compress};

fn options(archive: &Archive, now: i64) -> LoadOptions {
    let mut keys = KeyRing::empty();
    keys.add("test", &archive.key.bytes()).unwrap();
    LoadOptions { now, keys }
}

pub(crate) fn load_from(
    archive: &Archive,
    uri: &str,
    now: i64,
    cache: &Path,
) -> Result<(Universe, Vec<SourceInfo>), RepositoryError> {
    load_noting(archive, uri, now, cache, &Silent)
}

pub(crate) fn load_noting(
    archive: &Archive,
    uri: &str,
    now: i64,
    cache: &Path,
    progress: &dyn Progress,
) -> Result<(Universe, Vec<SourceInfo>), RepositoryError> {
    let cache = Cache::open(cache).unwrap();
    Universe::load(&[repository(uri)], "amd64", &cache, &options(archive, now), progress)
}

fn repository(uri: &str) -> Repository {
    Repository {
        role: "main".into(),
        uri: uri.into(),
        fallback: None,
        suite: "test".into(),
        components: vec!["main".into()],
        valid_until_override: false,
    }
}

pub(crate) const HEAD: &str = "Suite: test\nCodename: testing-name\nDate: Sun, 01 Jun 2025 00:00:00 UTC\n\
    Valid-Until: Sun, 08 Jun 2025 00:00:00 UTC\nAcquire-By-Hash: yes\nComponents: updates/main\n";

pub(crate) fn packages() -> String {
    let hash = Digest::of(b"content of a");
    format!(
        "Package: a\nVersion: 1.0+b1-1\nArchitecture: amd64\nFilename: pool/a_1.0+b1-1_amd64.deb\nSize: 12\nSHA256: {hash}\n\
         Description: one\n with two lines\n\nPackage: b\nVersion: 2\nArchitecture: arm64\n"
    )
}

#[test]
fn a_repository_is_read_from_a_folder_and_from_the_cache() {
    let archive = Archive::new();
    archive.suite("test", HEAD, &packages());
    let cache = tempfile::tempdir().unwrap();
    let (universe, sources) = load_from(&archive, &archive.uri(), NOW, cache.path()).unwrap();
    assert_eq!(universe.names().into_iter().collect::<Vec<_>>(), ["a"]);
    let package = universe.package(universe.versions_of("a")[0]).unwrap();
    assert_eq!((package.filename.as_str(), package.size), ("pool/a_1.0+b1-1_amd64.deb", 12));
    assert_eq!(package.fields.get("description"), Some("one\n with two lines"));
    assert_eq!((sources[0].date, sources[0].role.as_str()), (NOW, "main"));
    assert_eq!(sources[0].sha256, Digest::of(&fs::read(archive.path("dists/test/InRelease")).unwrap()));
    // The package list is kept: it need not be there a second time.
    fs::remove_dir_all(archive.path("dists/test/main")).unwrap();
    load_from(&archive, &archive.uri(), NOW, cache.path()).unwrap();
    let error = load_from(&archive, &archive.uri(), NOW, &cache.path().join("other")).unwrap_err();
    assert!(matches!(error, RepositoryError::Fetch(FetchError::Missing { .. })), "{error}");
}

#[test]
fn by_hash_comes_first_then_the_name_then_another_form() {
    let archive = Archive::new();
    archive.suite("test", HEAD, &packages());
    let by_hash = |xz| {
        let hash = Digest::of(&compress(&packages(), xz));
        format!("dists/test/main/binary-amd64/by-hash/SHA256/{hash}")
    };
    let server = Server::start(archive.folder.path(), Behaviour::default());
    let cache = tempfile::tempdir().unwrap();
    let mut hidden: Vec<String> = Vec::new();
    for (number, path) in [by_hash(true), "dists/test/main/binary-amd64/Packages.xz".into(), by_hash(false)]
        .into_iter()
        .enumerate()
    {
        server.behaviour.lock().unwrap().hidden.clone_from(&hidden);
        load_from(&archive, &server.uri, NOW, &cache.path().join(number.to_string())).unwrap();
        assert!(server.behaviour.lock().unwrap().asked.contains_key(&path), "{path}");
        hidden.push(path);
    }
}

#[test]
fn expired_future_and_foreign_indices_are_refused() {
    let archive = Archive::new();
    let cache = tempfile::tempdir().unwrap();
    archive.suite("test", HEAD, &packages());
    let week = 7 * 86_400;
    let load = |now| load_from(&archive, &archive.uri(), now, cache.path());
    assert!(load(NOW + week).is_ok());
    let error = load(NOW + week + 1).unwrap_err();
    assert!(matches!(error, RepositoryError::Expired { until, .. } if until == NOW + week), "{error}");
    assert!(error.to_string().contains("expired at 2025-06-08 00:00:00 UTC"), "{error}");
    let frozen = Repository { valid_until_override: true, ..repository(&archive.uri()) };
    let kept = Cache::open(cache.path()).unwrap();
    assert!(Universe::load(&[frozen], "amd64", &kept, &options(&archive, NOW + 2 * week), &Silent).is_ok());
    archive.suite("test", &HEAD.replace("01 Jun", "02 Jun"), &packages());
    assert!(matches!(load(NOW), Err(RepositoryError::Future { .. })));
    archive.suite("test", &HEAD.replace("Suite: test", "Suite: other"), &packages());
    let error = load(NOW).unwrap_err();
    assert!(
        error.to_string().contains("signed for suite other / testing-name, but test was asked for"),
        "{error}"
    );
    for (from, to, message) in [
        ("Date: Sun", "Day: Sun", "there is no Date"),
        ("01 Jun 2025 00:00:00 UTC", "01 Jun 2025 00:00:00 CEST", "is no date in UTC"),
        ("updates/main", "contrib", "there is no component main; there are contrib"),
    ] {
        archive.suite("test", &HEAD.replacen(from, to, 1), &packages());
        let error = load(NOW).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    let mut other = repository(&archive.uri());
    other.suite = "nowhere".into();
    let error = Universe::load(&[other], "amd64", &kept, &options(&archive, NOW), &Silent).unwrap_err();
    assert!(matches!(error, RepositoryError::NoSuite { .. }), "{error}");
}

#[test]
fn a_changed_package_list_is_refused() {
    let archive = Archive::new();
    archive.suite("test", HEAD, &packages());
    let evil = compress(&packages().replace("Package: a", "Package: e"), true);
    let good = Digest::of(&compress(&packages(), true));
    archive.write(&format!("dists/test/main/binary-amd64/by-hash/SHA256/{good}"), &evil);
    archive.write("dists/test/main/binary-amd64/Packages.xz", &evil);
    let cache = tempfile::tempdir().unwrap();
    let error = load_from(&archive, &archive.uri(), NOW, cache.path()).unwrap_err();
    assert!(matches!(error, RepositoryError::Fetch(FetchError::Mismatch(_))), "{error}");
}

#[test]
fn a_damaged_cache_is_fetched_anew() {
    let archive = Archive::new();
    archive.suite("test", HEAD, &packages());
    let cache = tempfile::tempdir().unwrap();
    load_from(&archive, &archive.uri(), NOW, cache.path()).unwrap();
    let plain = cache.path().join("by-hash/sha256").join(Digest::of(packages().as_bytes()).to_hex());
    fs::write(&plain, packages().replace("Package: a", "Package: e")).unwrap();
    let (universe, _) = load_from(&archive, &archive.uri(), NOW, cache.path()).unwrap();
    assert_eq!(universe.names().into_iter().collect::<Vec<_>>(), ["a"]);
}

pub(crate) fn big() -> Vec<u8> {
    (0..300_000_u32).flat_map(|i| (i.wrapping_mul(2_654_435_761) >> 7).to_le_bytes()).collect()
}

fn file(name: &str, content: &[u8], role: &str) -> FileRequest {
    FileRequest {
        name: name.into(),
        version: "1".into(),
        architecture: "all".into(),
        size: content.len() as u64,
        sha256: Digest::of(content),
        filename: format!("pool/{name}.deb"),
        role: role.into(),
    }
}

#[test]
fn a_download_that_breaks_off_is_resumed() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("big"), big()).unwrap();
    for (ranges, expected_ranges) in
        [(true, vec!["bytes=400000-", "bytes=1000000-"]), (false, vec!["bytes=400000-"])]
    {
        // Resumed twice; without ranges the second answer is whole and starts anew.
        let cut_after = if ranges { vec![400_000, 600_000] } else { vec![400_000] };
        let server = Server::start(folder.path(), Behaviour { ranges, cut_after, ..Behaviour::default() });
        let cache_folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(cache_folder.path()).unwrap();
        let url = format!("{}/big", server.uri);
        let got = Fetcher::new().verified(&url, 1_200_000, Digest::of(&big()), &cache, &Silent).unwrap();
        assert_eq!(fs::read(got).unwrap(), big());
        assert_eq!(server.behaviour.lock().unwrap().range_headers, expected_ranges);
        assert_eq!(fs::read_dir(cache_folder.path().join("incoming")).unwrap().count(), 0);
    }
}

#[test]
fn a_server_in_trouble_is_asked_again_and_wrong_bytes_are_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), b"right").unwrap();
    let server = Server::start(folder.path(), Behaviour { statuses: vec![503, 500], ..Behaviour::default() });
    let cache_folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(cache_folder.path()).unwrap();
    let url = format!("{}/file", server.uri);
    Fetcher::new().verified(&url, 5, Digest::of(b"right"), &cache, &Silent).unwrap();
    let wrong = Fetcher::new().verified(&url, 5, Digest::of(b"wrong"), &cache, &Silent).unwrap_err();
    assert!(matches!(wrong, FetchError::Mismatch(_)), "{wrong}");
    let long = Fetcher::new().verified(&url, 3, Digest::of(b"rig"), &cache, &Silent).unwrap_err();
    assert!(matches!(long, FetchError::Mismatch(_)), "{long}");
    assert_eq!(fs::read_dir(cache_folder.path().join("by-hash/sha256")).unwrap().count(), 1);
    let strange = Fetcher::new().verified("ftp://x/y", 1, Digest::of(b""), &cache, &Silent).unwrap_err();
    assert!(matches!(strange, FetchError::Scheme { .. }), "{strange}");
}

#[test]
fn a_cache_that_cannot_be_written_is_no_fault_of_a_mirror() {
    let folder = tempfile::tempdir().unwrap();
    let mirrors = Mirrors {
        main: format!("file://{}", folder.path().display()),
        security: format!("file://{}/security", folder.path().display()),
        security_fallback: None,
        chosen_by: ChosenBy::Recipe,
    };
    let cache_folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(cache_folder.path()).unwrap();
    fs::remove_dir(cache_folder.path().join("incoming")).unwrap();
    let notes = Notes::default();
    let error = download(&[file("a", b"a", "main")], &mirrors, &cache, &notes).unwrap_err();
    assert!(matches!(&error, DownloadError::Fetch { error: FetchError::Cache(_), .. }), "{error}");
    assert!(error.to_string().contains("incoming"), "{error}");
    assert!(notes.0.lock().unwrap().is_empty());
}

#[test]
fn a_server_that_refuses_is_not_one_that_lacks() {
    let archive = Archive::new();
    archive.suite("test", HEAD, &packages());
    let cache_folder = tempfile::tempdir().unwrap();
    let load = |statuses: Vec<u16>, fallback: Option<&str>| {
        let server = Server::start(archive.folder.path(), Behaviour { statuses, ..Behaviour::default() });
        let fallback = fallback.map(str::to_owned);
        let cache = Cache::open(&cache_folder.path().join("indexes")).unwrap();
        let repository = Repository { fallback, ..repository(&server.uri) };
        let loaded =
            Universe::load(&[repository], "amd64", &cache, &options(&archive, NOW), &Silent).map(|_| ());
        loaded.map_err(|error| error.to_string().replace(&server.uri, "MIRROR"))
    };
    let message = |status| load(vec![status], None).unwrap_err();
    assert!(message(404).starts_with("MIRROR: there is no suite test"));
    assert!(message(410).starts_with("MIRROR: there is no suite test"));
    for (status, advice) in [
        (401, "name and password"),
        (403, "http_proxy"),
        (407, "http_proxy=http://NAME:PASSWORD@HOST:PORT"),
        (451, "another mirror"),
    ] {
        let text = message(status);
        let start =
            format!("MIRROR/dists/test/InRelease: the server refuses to give it (HTTP status {status}). ");
        assert!(text.starts_with(&start) && text.contains(advice), "{text}");
    }
    // Where the archive was only guessed, a server may refuse what it does not have.
    assert_eq!(load(vec![403], Some(&archive.uri())), Ok(()));
    // The form of a package list that is refused is not the only one.
    fs::remove_dir_all(cache_folder.path().join("indexes")).unwrap();
    let by_hash =
        format!("dists/test/main/binary-amd64/by-hash/SHA256/{}", Digest::of(&compress(&packages(), true)));
    let server =
        Server::start(archive.folder.path(), Behaviour { refused: vec![by_hash], ..Behaviour::default() });
    load_from(&archive, &server.uri, NOW, &cache_folder.path().join("indexes")).unwrap();

    // A package that one archive refuses may be had from another; else the refusal is what is told.
    archive.write("pool/a.deb", b"a");
    let refused = vec!["pool/a.deb".to_owned(), "pool/b.deb".to_owned()];
    let server = Server::start(archive.folder.path(), Behaviour { refused, ..Behaviour::default() });
    let cache = Cache::open(&cache_folder.path().join("packages")).unwrap();
    let mirrors = Mirrors {
        main: server.uri.clone(),
        security: archive.uri(),
        security_fallback: None,
        chosen_by: ChosenBy::Recipe,
    };
    download(&[file("a", b"a", "main")], &mirrors, &cache, &Silent).unwrap();
    let error = download(&[file("b", b"b", "main")], &mirrors, &cache, &Silent).unwrap_err();
    assert!(
        matches!(
            &error,
            DownloadError::Fetch { error: FetchError::Refused { status: 403, url }, .. }
                if *url == format!("{}/pool/b.deb", server.uri)
        ),
        "{error}"
    );
}

#[test]
fn locked_files_are_fetched_without_an_index_from_whichever_archive_has_them() {
    let (main, security) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for folder in [&main, &security] {
        fs::create_dir(folder.path().join("pool")).unwrap();
    }
    fs::write(main.path().join("pool/a.deb"), b"content of a").unwrap();
    fs::write(main.path().join("pool/moved.deb"), b"moved").unwrap();
    fs::write(security.path().join("pool/c d.deb"), b"content of c").unwrap();
    let mirrors = Mirrors {
        main: format!("file://{}", main.path().display()),
        security: format!("file://{}", security.path().display()),
        security_fallback: None,
        chosen_by: ChosenBy::Recipe,
    };
    let cache_folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(cache_folder.path()).unwrap();
    // A security update that has moved to the archive proper with a point release is found there.
    let files = [
        file("a", b"content of a", "main"),
        file("moved", b"moved", "security"),
        file("c d", b"content of c", "security"),
    ];
    let first = download(&files, &mirrors, &cache, &Silent).unwrap();
    assert_eq!((first.hits, first.fetched_bytes), (0, 29));
    assert_eq!(fs::read(&first.paths[2]).unwrap(), b"content of c");
    let second = download(&files, &mirrors, &cache, &Silent).unwrap();
    assert_eq!((second.hits, second.fetched_bytes), (3, 0));
    let packages = "Package: gone\nVersion: 3\nArchitecture: all\n";
    let universe =
        Universe::from_texts("amd64", vec![("Packages".into(), "main".into(), packages.into())]).unwrap();
    // All that is gone is told at once, and what the repositories have instead.
    let files =
        [file("gone", b"gone", "main"), file("a", b"content of a", "main"), file("lost", b"", "security")];
    let error = download(&files, &mirrors, &cache, &Silent).unwrap_err();
    let DownloadError::Gone { mut packages, asked } = error else { panic!("{error}") };
    assert_eq!(asked.len(), 2);
    name_replacements(&mut packages, &universe);
    let asked = vec!["http://mirror/debian".to_owned()];
    assert_eq!(
        DownloadError::Gone { packages, asked }.to_string(),
        "2 packages that no mirror has any more (asked: http://mirror/debian):\n  gone 1 (all), replaced by 3\n  \
         lost 1 (all)\nUse a mirror that keeps old versions, or renew the lock with --update"
    );
}

#[test]
fn a_broken_package_list_is_an_error_with_its_line() {
    let read =
        |text: &str| Universe::from_texts("amd64", vec![("Packages".into(), "main".into(), text.into())]);
    let message = |text: &str| match read(text) {
        Ok(_) => panic!("{text}"),
        Err(error) => error.to_string(),
    };
    let good = "Package: a\nVersion: 1\nArchitecture: all\n\n";
    assert_eq!(
        message(&format!("{good}Package b\n")),
        "Packages:5: expected `Field: value`, found \"Package b\""
    );
    assert!(
        message(&format!("{good}Package: b\nArchitecture: all\n")).starts_with("Packages:5: a package needs")
    );
    assert!(
        message(&format!("{good}Package: b\nVersion: 1 2\nArchitecture: all\n"))
            .contains("Packages:5: package b: ")
    );
    let provides = message(&format!("{good}Package: b\nVersion: 1\nArchitecture: all\nProvides: c (\n"));
    assert!(provides.starts_with("Packages:5: package b: \"c (\" is no relation"), "{provides}");
    for filename in ["/etc/x", "../x", "pool/../../x", "pool//x", "x?y", ""] {
        let hash = Digest::of(b"");
        let universe = read(&format!(
            "{}Filename: {filename}\nSize: 1\nSHA256: {hash}\n",
            good.trim_end().to_owned() + "\n"
        ));
        assert!(universe.unwrap().package(0).is_err(), "{filename}");
    }
}

/// A .deb with these fields and no files.
fn deb(fields: &str) -> Vec<u8> {
    lying_mirror::deb(fields, &[])
}

#[test]
fn a_lock_is_added_to_although_the_repository_has_moved_on() {
    let archive = Archive::new();
    let hash = Digest::of(b"");
    let tail = format!("Architecture: amd64\nFilename: pool/x.deb\nSize: 0\nSHA256: {hash}\n");
    let packages = format!(
        "Package: a\nVersion: 2\nDepends: lib (>= 2)\n{tail}\nPackage: lib\nVersion: 2\n{tail}\nPackage: new\nVersion: 1\nDepends: lib\n{tail}"
    );
    archive.suite("test", HEAD, &packages);
    let old = [
        ("a", deb("Package: a\nVersion: 1\nArchitecture: all\nDepends: lib\n")),
        ("lib", deb("Package: lib\nVersion: 1\nArchitecture: all\n")),
    ];
    let locked: Vec<FileRequest> = old.iter().map(|(name, bytes)| file(name, bytes, "main")).collect();
    let mirrors = Mirrors {
        main: archive.uri(),
        security: archive.uri(),
        security_fallback: None,
        chosen_by: ChosenBy::Recipe,
    };
    let cache_folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(cache_folder.path()).unwrap();
    let (mut universe, _) =
        Universe::load(&[repository(&archive.uri())], "amd64", &cache, &options(&archive, NOW), &Silent)
            .unwrap();
    let Err(DownloadError::Gone { mut packages, asked }) = download(&locked, &mirrors, &cache, &Silent)
    else {
        panic!("the archive has what it has not");
    };
    name_replacements(&mut packages, &universe);
    let gone = DownloadError::Gone { packages, asked };
    assert!(gone.to_string().contains("\n  a 1 (all), replaced by 2\n"), "{gone}");
    old.iter().for_each(|(_, bytes)| drop(cache.put(bytes).unwrap()));
    let downloaded = download(&locked, &mirrors, &cache, &Silent).unwrap();
    for (file, path) in locked.iter().zip(&downloaded.paths) {
        let control = Deb::open(path).and_then(|mut deb| deb.control()).unwrap();
        universe.add(&control.fields, file).unwrap();
    }
    let pinned =
        locked.iter().map(|file| (file.name.clone(), Version::parse(&file.version).unwrap())).collect();
    let install = ["a", "new"].map(|name| (name.to_owned(), None)).to_vec();
    let solution = solve(&universe, &Request { install, pinned, ..Request::default() }).unwrap();
    let shown: Vec<_> = solution.packages.iter().map(|one| one.package.request()).collect();
    assert_eq!(shown[..2], locked[..]);
    assert_eq!((shown[2].name.as_str(), shown.len()), ("new", 3));
}
