//! `store …` from put to gc.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use serde_json::Value;

use crate::shapes::assert_documented;
use crate::{bakehouse, json, run, text};

const SIZE: u64 = 64 << 20;

/// A sparse image with some blocks of data that does not compress.
fn image(path: &Path, seeds: &[u8]) {
    let file = File::create(path).unwrap();
    file.set_len(SIZE).unwrap();
    for (index, seed) in seeds.iter().enumerate() {
        let mut state = u64::from(*seed) + 1;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u8
        };
        let block: Vec<u8> = (0..512 << 10).map(|_| noise()).collect();
        file.write_all_at(&block, index as u64 * (4 << 20)).unwrap();
    }
}

fn told(folder: &Path, command: &str, arguments: &[&str]) -> Value {
    let all = [&["store", command], arguments, &["--store", "the store", "--json"]].concat();
    let output = run(folder, &all);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    let told = json(&output);
    assert_documented(&format!("bakehouse store {command}"), &told);
    told
}

#[test]
fn images_are_put_got_and_collected() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    image(&folder.join("first.raw"), &[1, 2, 3]);
    image(&folder.join("second.raw"), &[1, 5, 6]);
    let put = told(folder, "put", &["first.raw"]);
    assert_eq!((&put["name"], &put["size"], &put["new_blocks"]), (&"first".into(), &SIZE.into(), &3.into()));
    let put = told(folder, "put", &["second.raw", "--name", "garden", "--parent", "first"]);
    assert_eq!((&put["new_blocks"], &put["blocks"]), (&2.into(), &3.into()));
    let listed = told(folder, "ls", &[]);
    assert_eq!(listed["snapshots"][1]["parent"], listed["snapshots"][0]["snapshot_id"]);
    assert_eq!(told(folder, "stat", &[])["unique_blocks"], 5);
    assert_eq!(told(folder, "verify", &[])["whole"], true);
    told(folder, "get", &["garden", "again.raw"]);
    assert!(fs::read(folder.join("again.raw")).unwrap() == fs::read(folder.join("second.raw")).unwrap());
    assert!(fs::metadata(folder.join("again.raw")).unwrap().blocks() * 512 < SIZE / 4);
    // Onto another image only what differs is written.
    fs::copy(folder.join("first.raw"), folder.join("other.raw")).unwrap();
    assert_eq!(told(folder, "get", &["garden", "other.raw"])["written_blocks"], 2);

    // A name means what was put last under it, be it known from before.
    for image in ["first.raw", "second.raw", "first.raw"] {
        told(folder, "put", &[image, "--name", "disk"]);
        told(folder, "get", &["disk", "disk.raw"]);
        assert!(fs::read(folder.join("disk.raw")).unwrap() == fs::read(folder.join(image)).unwrap());
    }
    assert_eq!(told(folder, "ls", &[])["snapshots"].as_array().unwrap().len(), 4);
    for _ in 0..2 {
        told(folder, "forget", &["disk"]);
    }
    for no_image in ["/dev/zero", "."] {
        let refused = run(folder, &["store", "put", no_image, "--store", "the store"]);
        assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stderr));
        assert!(text(&refused.stderr).contains("neither a file nor a block device"));
    }

    let wrong = run(folder, &["store", "get", "gardne", "x.raw", "--store", "the store"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(text(&wrong.stderr).contains("did you mean \"garden\"?"), "{}", text(&wrong.stderr));
    assert_eq!(run(folder, &["store", "ls", "--store", "elsewhere"]).status.code(), Some(2));
    assert_eq!(run(folder, &["store", "put", "nothing.raw", "--store", "the store"]).status.code(), Some(2));

    told(folder, "forget", &["first"]);
    // Less than half of the first pack is needed still.
    let plan = told(folder, "gc", &["--dry-run"]);
    assert_eq!(plan["done"], Value::Null);
    assert!(plan["plan"]["freed_bytes"].as_u64().unwrap() >= 512 << 10, "{plan:#}");
    let gc = told(folder, "gc", &[]);
    assert!(gc["done"]["freed_bytes"].as_u64().unwrap() >= 512 << 10, "{gc:#}");
    assert_eq!(told(folder, "stat", &[])["snapshots"], 1);
    assert_eq!(told(folder, "verify", &[])["whole"], true);
}

#[test]
fn people_get_a_summary() {
    let folder = tempfile::tempdir().unwrap();
    image(&folder.path().join("one.raw"), &[1, 2]);
    let output = run(folder.path(), &["store", "put", "one.raw", "--store", "s"]);
    let said = text(&output.stdout);
    for part in ["logical    64.0 MiB", "data        1.0 MiB", "new         1.0 MiB", "stored", "saved"] {
        assert!(said.contains(part), "no `{part}` in:\n{said}");
    }
    assert!(
        text(&run(folder.path(), &["store", "put", "one.raw", "--store", "s"]).stdout)
            .contains("was there already")
    );
    let listed = text(&run(folder.path(), &["store", "ls", "--store", "s"]).stdout);
    assert!(listed.starts_with("snap-") && listed.trim_end().ends_with("  one"), "{listed}");
}

#[test]
fn damage_is_named_and_a_new_put_heals_it() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    image(&folder.join("one.raw"), &[1, 2]);
    told(folder, "put", &["one.raw"]);
    let pack =
        walk(&folder.join("the store/packs")).max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let file = File::options().read(true).write(true).open(pack).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 300 << 10).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 300 << 10).unwrap();
    let output = run(folder, &["store", "verify", "--store", "the store", "--json"]);
    let found = json(&output);
    assert_eq!((output.status.code(), &found["whole"]), (Some(1), &false.into()), "{found:#}");
    assert_documented("bakehouse store verify", &found);
    assert_eq!(found["damaged"][0]["hurts"][0]["name"], "one");
    let output = run(folder, &["store", "verify", "--repair", "--store", "the store"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("put an image that has them"), "{}", text(&output.stdout));
    told(folder, "put", &["one.raw", "--name", "healed"]);
    told(folder, "get", &["one", "again.raw"]);
    assert!(fs::read(folder.join("again.raw")).unwrap() == fs::read(folder.join("one.raw")).unwrap());
}

#[test]
fn what_another_word_would_mend_is_the_users_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("file"), "x").unwrap();
    image(&folder.join("one.raw"), &[1]);
    told(folder, "put", &["one.raw", "--name", "one"]);
    let cases: [(&[&str], &str); 8] = [
        (&["store", "ls", "--store", "file"], "file: this is not a store"),
        (&["store", "put", "one.raw", "--store", "file"], "file: this is not a store"),
        (&["store", "ls", "--store", "s3://bucket"], "s3://bucket: a store is a folder"),
        (&["store", "get", "one", "no/such/one.raw", "--store", "the store"], "no/such: no such folder"),
        (&["store", "get", "one", ".", "--store", "the store"], "this is a folder"),
        (&["store", "get", "ome", "x", "--store", "the store"], "did you mean \"one\"?"),
        (&["man", "file"], "file: is there and no folder"),
        (&["bake", "x.yaml", "--set", "=x"], "no name before its `=`"),
    ];
    for (arguments, part) in cases {
        let output = run(folder, arguments);
        let said = text(&output.stderr);
        assert!(
            output.status.code() == Some(2) && said.contains(part),
            "{arguments:?}: {}\n{said}",
            output.status
        );
    }
    for (missing, part) in [("store ls", "HOME is not set"), ("tools", "neither BAKEHOUSE_CACHE nor HOME")] {
        let mut command = bakehouse(folder, &missing.split(' ').collect::<Vec<_>>());
        for name in ["HOME", "BAKEHOUSE_CACHE", "BAKEHOUSE_STORE", "XDG_CACHE_HOME", "XDG_DATA_HOME"] {
            command.env_remove(name);
        }
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains(part), "{}", text(&output.stderr));
    }
}

/// Every file below a folder.
fn walk(folder: &Path) -> impl Iterator<Item = std::path::PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.into_iter()
}
