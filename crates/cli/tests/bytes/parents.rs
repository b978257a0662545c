//! An image against a parent: what it says of itself is counted anew over the two disks, the lock and the layout beside it give the
//! same bytes where the parent is gone, and a lock whose parent cannot be had is told.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use block::Digest;
use formats::RawFile;
use serde_json::Value;

use crate::{copy, run};

const FIRST: &str = "one\n";

/// A small recipe with a data disk; `more` packages, and what the data disk has on it.
fn write_recipe(folder: &Path, more: &str, note: &str) {
    fs::create_dir_all(folder.join("data")).unwrap();
    fs::write(folder.join("data/note"), note).unwrap();
    fs::write(folder.join("data/rest"), FIRST.repeat(200_000)).unwrap();
    let text = format!(
        "name: child\narchitectures: [x86_64, aarch64]\npackages: [{more}]\n\
         files: [{{path: /opt/note, content: {note:?}}}]\nvolumes:\n\
         \x20 - {{device: /dev/xvda, root: true, size: 2GiB}}\n\
         \x20 - {{device: /dev/xvdf, size: 300MiB, filesystem: ext4, mount: /srv/data, source: data/}}\n"
    );
    fs::write(folder.join("child.yaml"), text).unwrap();
}

fn blocks(out: &Path, name: &str) -> BTreeMap<u64, Digest> {
    block::block_ids(&RawFile::open(&out.join(name)).unwrap()).unwrap().into_iter().collect()
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

pub(crate) fn a_child_follows_its_parent() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let folder = folder.path();
    let recipes = folder.join("recipes");
    let (first, second) = (folder.join("out/first"), folder.join("out/second"));
    let bakehouse = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bakehouse"));
        command.args(arguments).env("BAKEHOUSE_STORE", folder.join("store")).current_dir(folder);
        command
    };
    let bake = |arguments: &[&str]| {
        let mut command = bakehouse(&["bake", "--no-check", "--json", "recipes/child.yaml"]);
        command.args(arguments);
        command
    };
    let host = ["--arch", "x86_64", "--out"];
    write_recipe(&recipes, "", FIRST);
    run("the parent's bake", bake(&host).arg(first.join("x86_64")));
    write_recipe(&recipes, "less", "another\n");
    // The folder above the parent's will do.
    let output = run("the child's bake", bake(&host).arg(&second).arg("--parent").arg(&first));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let first = first.join("x86_64");
    let (parent, child) = (json(&first.join("image.json")), json(&second.join("image.json")));
    for (at, name) in ["xvda.raw", "xvdf.raw"].into_iter().enumerate() {
        let (old, new) = (blocks(&first, name), blocks(&second, name));
        let indexes: BTreeSet<&u64> = old.keys().chain(new.keys()).collect();
        let changed = indexes.into_iter().filter(|index| old.get(index) != new.get(index)).count();
        let known: BTreeSet<&Digest> = old.values().collect();
        let fresh = new.values().filter(|id| !known.contains(id)).count();
        println!("      {name}: {fresh} of {} blocks are new, {changed} indexes differ", new.len());
        assert!(
            changed > 0 && changed * 10 <= fresh * 13,
            "{changed} indexes differ, {fresh} blocks are new"
        );
        let counted = serde_json::json!({
            "digest": parent["volumes"][at]["digest"], "changed_blocks": changed, "changed_bytes": changed << 19,
        });
        assert_eq!(child["volumes"][at]["parent"], counted);
        assert_eq!(told["volumes"][at]["parent"], counted);
        assert!(said.contains(&format!("a push to EBS sends {changed} block")), "{said}");
    }
    assert!(parent["volumes"][0].get("parent").is_none());
    the_store_knows(&parent, &child, &run("ls", &mut bakehouse(&["store", "ls", "--json"])));

    let (lock, layout) = (recipes.join("child.lock"), recipes.join("child.x86_64.layout"));
    let text = fs::read_to_string(&lock).unwrap();
    let digest = parent["volumes"][0]["digest"].as_str().unwrap();
    assert!(text.contains(&format!("parent = \"{digest}\"")), "{text}");
    println!("      the layout has {} bytes", fs::metadata(&layout).unwrap().len());

    let other = folder.join("elsewhere");
    copy(&recipes, &other);
    fs::remove_dir_all(folder.join("out/first")).unwrap();
    let output = run(
        "the bake without the parent",
        bakehouse(&["verify", "--rebuild", "--recipe"]).arg(other.join("child.yaml")).arg(&second),
    );
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("all 7 outputs are the same"), "{said}");

    mistakes(&bake, &lock, &layout, &second);

    let output = run("the same bake again", bake(&host).arg(&second).arg("--locked"));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["stages"].as_array().unwrap().last().unwrap()["name"], "outputs");
    let third = folder.join("out/third");
    run("the bake without a parent", bake(&host).arg(&third).args(["--parent", "none"]));
    assert!(!fs::read_to_string(&lock).unwrap().contains("parent") && !layout.exists());
    let before = json(&third.join("image.json"));
    assert!(before["volumes"][0].get("parent").is_none());

    // An image takes the place of its parent.
    write_recipe(&recipes, "less", "a third\n");
    run("the bake over its parent", bake(&host).arg(&third).arg("--parent").arg(&third));
    let after = json(&third.join("image.json"));
    for at in 0..2 {
        assert_eq!(after["volumes"][at]["parent"]["digest"], before["volumes"][at]["digest"]);
        assert_ne!(after["volumes"][at]["digest"], before["volumes"][at]["digest"]);
    }
}

/// The child's snapshots follow the parent's.
fn the_store_knows(parent: &Value, child: &Value, listed: &Output) {
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    for at in 0..2 {
        let id = &child["volumes"][at]["snapshot_id"];
        let records = listed["snapshots"].as_array().unwrap();
        let record = records.iter().find(|record| record["snapshot_id"] == *id).unwrap();
        assert_eq!(record["parent"], parent["volumes"][at]["snapshot_id"]);
    }
}

/// What cannot be is told, with exit code 2, and changes neither lock nor layout.
fn mistakes(bake: &dyn Fn(&[&str]) -> Command, lock: &Path, layout: &Path, child: &Path) {
    let (locked, laid) = (fs::read(lock).unwrap(), fs::read(layout).unwrap());
    let child = child.to_str().unwrap();
    let tells = |arguments: &[&str], parts: &[&str]| {
        let before = fs::read(layout).ok();
        let output = bake(&[&["--out", "out/none"], arguments].concat()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(parts.iter().all(|part| said.contains(part)), "no {parts:?} in:\n{said}");
        assert!(fs::read(lock).unwrap() == locked && fs::read(layout).ok() == before);
    };
    let here = ["--arch", "x86_64"];
    let with = |more: &[&'static str]| [&here[..], more].concat();
    tells(
        &["--arch", "aarch64", "--parent", child],
        &["is an image for x86_64, and cannot be the parent of one for aarch64"],
    );
    tells(
        &[&here[..], &["--locked", "--parent", child]].concat(),
        &["its parent for x86_64 is another image, and --locked"],
    );
    tells(
        &with(&["--locked", "--parent", "none"]),
        &["it has a parent for x86_64, and --locked allows no change"],
    );
    tells(
        &with(&["--parent", "out/nothing"]),
        &["out/nothing: is neither a folder that `bakehouse bake` wrote"],
    );
    fs::write(layout, &laid[..laid.len() - 1]).unwrap();
    tells(
        &with(&[]),
        &["child.x86_64.layout: has the SHA-256", "restore it, name the parent again with --parent IMAGE"],
    );
    fs::remove_file(layout).unwrap();
    tells(
        &with(&["--locked"]),
        &[
            "child.x86_64.layout: is not there, and the lock lays",
            "or take it out of the lock with --parent none",
        ],
    );
    fs::write(layout, laid).unwrap();
}
