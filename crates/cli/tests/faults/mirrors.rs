//! Mirrors that are gone, lie, or break off; caches that are damaged. (Those that are slow are in the tests of `debian`,
//! where a test can be less patient than the program.)

use std::fs;

use lying_mirror::{Behaviour, NOW, Package, TestKey, Wish, gone};

use crate::Case;
use crate::house::{BIG, DATE, RELEASE, Running, Tiny, each, head};

pub(crate) const CASES: &[Case] = &[
    ("a_mirror_that_is_gone", a_mirror_that_is_gone),
    ("an_index_signed_by_somebody_else", an_index_signed_by_somebody_else),
    ("an_index_that_was_changed_or_cut_off", an_index_that_was_changed_or_cut_off),
    ("an_index_that_has_expired", an_index_that_has_expired),
    ("a_clock_that_is_years_off", a_clock_that_is_years_off),
    ("a_mirror_that_goes_back_in_time", a_mirror_that_goes_back_in_time),
    ("a_package_list_that_was_changed_or_cut_off", a_package_list_that_was_changed_or_cut_off),
    ("a_lock_that_was_changed_by_hand", a_lock_that_was_changed_by_hand),
    ("a_package_that_was_changed_or_cut_off", a_package_that_was_changed_or_cut_off),
    ("a_package_outside_of_the_pool", a_package_outside_of_the_pool),
    ("a_download_that_breaks_off_is_resumed", a_download_that_breaks_off_is_resumed),
    ("a_damaged_cache_is_fetched_again", a_damaged_cache_is_fetched_again),
    ("two_at_once_share_a_cache_and_a_lock", two_at_once_share_a_cache_and_a_lock),
];

fn a_mirror_that_is_gone() {
    let tiny = Tiny::new(Behaviour::default());
    let uri = gone();
    tiny.recipe(&uri);
    tiny.fails(&[
        &format!("{uri}/{RELEASE}: cannot be fetched, after 4 attempts"),
        "(from the recipe)",
        "BAKEHOUSE_DEBIAN_MIRROR",
        "trying again",
    ]);
    assert!(!tiny.lock().exists());
}

fn an_index_signed_by_somebody_else() {
    let tiny = Tiny::new(Behaviour::default());
    let other = TestKey::new(&Wish { seed: 2, ..Wish::default() });
    fs::write(tiny.folder.path().join("key.asc"), other.armored()).unwrap();
    tiny.fails(&[
        &format!("{}/{RELEASE}: no good signature by a trusted key", tiny.server.uri),
        "not among the trusted keys",
        "distribution.signed_by",
    ]);
    assert!(!tiny.lock().exists());
}

fn an_index_that_was_changed_or_cut_off() {
    let tiny = Tiny::new(Behaviour::default());
    let index = fs::read(tiny.archive.path(RELEASE)).unwrap();
    let changed = String::from_utf8(index.clone()).unwrap().replace("Codename: trixie", "Codename: trixiE");
    tiny.server.behaviour().lies = each(vec![RELEASE.to_owned()], &changed.into_bytes());
    tiny.fails(&[RELEASE, "the text is not what was signed", "use another mirror"]);
    *tiny.server.behaviour() =
        Behaviour { truncated: each(vec![RELEASE.to_owned()], &(index.len() / 2)), ..Behaviour::default() };
    tiny.fails(&[RELEASE, "no usable OpenPGP signed text"]);
    assert!(!tiny.lock().exists());
}

fn an_index_that_has_expired() {
    let tiny = Tiny::new(Behaviour::default());
    tiny.publish("1", &format!("{}Valid-Until: Sun, 08 Jun 2025 00:00:00 UTC\n", head(DATE)), NOW);
    tiny.fails(&[
        RELEASE,
        "expired at 2025-06-08 00:00:00 UTC",
        "use another mirror",
        "This machine's clock says",
    ]);
}

/// The program asks the machine's clock, so it is the mirror that lives in another decade.
fn a_clock_that_is_years_off() {
    let tiny = Tiny::new(Behaviour::default());
    let future = NOW + 70 * 365 * 86_400;
    tiny.publish("1", &head("Fri, 14 May 2095 00:00:00 UTC"), future);
    tiny.fails(&[
        RELEASE,
        "it was made at 2095-",
        "This machine's clock says",
        "set it right",
        "timedatectl",
    ]);
    tiny.publish("1", &head("Fri, 14 May 2095 00:00:00 UTC"), NOW);
    tiny.fails(&["dated 2095-05-14", "still to come", "This machine's clock says", "timedatectl"]);
}

fn a_mirror_that_goes_back_in_time() {
    let tiny = Tiny::new(Behaviour::default());
    tiny.publish("2", &head("Mon, 02 Jun 2025 00:00:00 UTC"), NOW);
    tiny.bake(&[]).has_packages();
    let newer = fs::read_to_string(tiny.lock()).unwrap();
    assert!(newer.contains("hello_2_all.deb"), "{newer}");
    // Both are signed, and neither has expired.
    tiny.publish("1", &head(DATE), NOW);
    let said = tiny.bake(&["--update"]);
    said.has_packages();
    said.tells(1, &["gives an index of 2025-06-01", "older than the one of 2025-06-02"]);
    assert_eq!(fs::read_to_string(tiny.lock()).unwrap(), newer);
    // Another machine's cache has never seen the newer one, but the lock has.
    fs::remove_dir_all(&tiny.cache).unwrap();
    tiny.bake(&["--update"]).tells(
        1,
        &[
            "tiny.lock: written when trixie was of 2025-06-02",
            "2025-06-01",
            "withholds updates",
            "remove the lock",
        ],
    );
    assert_eq!(fs::read_to_string(tiny.lock()).unwrap(), newer);
}

fn a_package_list_that_was_changed_or_cut_off() {
    let tiny = Tiny::new(Behaviour::default());
    let changed = |path: String| {
        let mut bytes = fs::read(tiny.archive.path(&path)).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        (path, bytes)
    };
    tiny.server.behaviour().lies = tiny.lists().into_iter().map(changed).collect();
    tiny.fails(&["main/binary-", "expected ", "with SHA-256", "use another mirror"]);
    *tiny.server.behaviour() = Behaviour { truncated: each(tiny.lists(), &100), ..Behaviour::default() };
    tiny.fails(&["main/binary-", "100 of ", "bytes came", "BAKEHOUSE_DEBIAN_MIRROR"]);
    assert!(!tiny.lock().exists());
}

fn a_lock_that_was_changed_by_hand() {
    let tiny = Tiny::new(Behaviour::default());
    tiny.bake(&[]).has_packages();
    let lock = fs::read_to_string(tiny.lock()).unwrap();
    let line = lock.lines().position(|line| line.contains("hello_1_all.deb")).unwrap() + 1;
    let place = format!("tiny.lock:{line}. If that was changed by hand");
    let digest = lock.lines().nth(line - 1).unwrap().split('"').find(|word| word.len() == 64).unwrap();
    fs::write(tiny.lock(), lock.replace(digest, &"0".repeat(64))).unwrap();
    tiny.bake(&[]).tells(1, &["hello 1: ", "expected ", &place, "--update"]);
    fs::write(
        tiny.lock(),
        lock.replace("hello_1_all.deb", "hello_3_all.deb").replace(digest, &"1".repeat(64)),
    )
    .unwrap();
    tiny.bake(&[]).tells(1, &["no mirror has any more", &place]);
    fs::write(tiny.lock(), lock).unwrap();
    tiny.bake(&[]).has_packages();
}

fn a_package_that_was_changed_or_cut_off() {
    let tiny = Tiny::new(Behaviour::default());
    let mut changed = fs::read(tiny.archive.path(BIG)).unwrap();
    *changed.last_mut().unwrap() ^= 1;
    tiny.server.behaviour().lies = each(vec![BIG.to_owned()], &changed);
    tiny.fails(&[BIG, "big 1: ", "expected ", "with SHA-256", "use another mirror"]);
    *tiny.server.behaviour() =
        Behaviour { truncated: each(vec![BIG.to_owned()], &5000), ..Behaviour::default() };
    tiny.fails(&[BIG, "5000 of ", "bytes came"]);
    // What was right is kept, and nothing else.
    tiny.server.behaviour().truncated.clear();
    tiny.bake(&[]).has_packages();
    let kept = fs::read(tiny.cached(&fs::read(tiny.archive.path(BIG)).unwrap())).unwrap();
    assert_ne!(kept, changed);
}

fn a_package_outside_of_the_pool() {
    let tiny = Tiny::new(Behaviour::default());
    for place in ["../../outside.deb", "/etc/passwd", "pool/../../outside.deb"] {
        let filename = Some(place.to_owned());
        tiny.publish_all(&[Package { filename, ..Package::new("hello", "1") }], &head(DATE), NOW);
        tiny.fails(&["hello", place, "use another mirror"]);
        assert!(!tiny.lock().exists());
    }
    assert!(
        tiny.server
            .behaviour()
            .asked
            .keys()
            .all(|path| !path.contains("outside") && !path.contains("passwd"))
    );
}

fn a_download_that_breaks_off_is_resumed() {
    // The first two are the index and the package list.
    let cut_after = [vec![usize::MAX; 2], vec![700_000; 12]].concat();
    let tiny = Tiny::new(Behaviour { cut_after, ranges: true, ..Behaviour::default() });
    tiny.bake(&[]).has_packages();
    let behaviour = tiny.server.behaviour();
    assert!(
        behaviour.range_headers.iter().any(|range| range == "bytes=700000-"),
        "{:?}",
        behaviour.range_headers
    );
    drop(behaviour);
    let whole = fs::read(tiny.archive.path(BIG)).unwrap();
    assert_eq!(fs::read(tiny.cached(&whole)).unwrap(), whole);
}

fn a_damaged_cache_is_fetched_again() {
    let tiny = Tiny::new(Behaviour::default());
    tiny.bake(&[]).has_packages();
    let lock = fs::read(tiny.lock()).unwrap();
    let big = fs::read(tiny.archive.path(BIG)).unwrap();
    assert_eq!(tiny.server.behaviour().asked[BIG], 1);
    // Every file of the cache, the package lists among them, loses a bit and stays as long as it was.
    for entry in fs::read_dir(tiny.cache.join("downloads/by-hash/sha256")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    tiny.bake(&["--update"]).has_packages();
    assert_eq!(tiny.server.behaviour().asked[BIG], 2);
    assert_eq!(fs::read(tiny.cached(&big)).unwrap(), big);
    assert_eq!(fs::read(tiny.lock()).unwrap(), lock);
}

fn two_at_once_share_a_cache_and_a_lock() {
    let tiny = Tiny::new(Behaviour::default());
    let other = tiny.folder.path().join("other");
    let mut second = crate::house::bakehouse(&tiny.cache);
    second.arg("bake").arg(tiny.recipe_file()).arg("--no-check").arg("--out").arg(&other);
    let (first, second) = (Running::start(tiny.command(&[])), Running::start(second));
    for said in [first.end(), second.end()] {
        said.has_packages();
    }
    assert!(!other.exists());
    tiny.left_nothing();
    let beside: Vec<_> =
        fs::read_dir(tiny.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(beside.iter().all(|name| !name.to_string_lossy().ends_with(".new")), "{beside:?}");
}
