//! Every committed input, once, in an ordinary build: what was mended stays mended.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use fuzz::{Meter, TARGETS, read_folder, run};

#[global_allocator]
static METER: Meter = Meter;

const CORPORA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/fuzz");

#[test]
fn each_target_has_a_corpus_and_holds_on_all_of_it() {
    let mut failures = Vec::new();
    for target in TARGETS {
        let inputs = read_folder(&Path::new(CORPORA).join(target.name)).unwrap();
        assert!(!inputs.is_empty(), "testdata/fuzz/{} has no input", target.name);
        for (name, bytes) in inputs {
            if let Err(failure) = run(target, &bytes) {
                failures.push(format!("testdata/fuzz/{}/{name}: {}", target.name, failure.what));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn each_corpus_has_a_target() {
    let names: BTreeSet<_> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(names.len(), TARGETS.len(), "two targets have one name");
    let folders: BTreeSet<_> = fs::read_dir(CORPORA)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(folders, names);
}
