use std::fs;
use std::path::Path;

use recipe::{LoadOptions, Lock};

use super::{can_be_shown, text};
use crate::Target;

pub(super) const RECIPE: Target = Target {
    words: &[
        b"name: ",
        b"extends: builtin:debian-13\n",
        b"extends: ../base.yaml\n",
        b"vars: {a: ",
        b"${{ a }}",
        b"$${{",
        b"packages: [",
        b"motd:\n  10-a: |\n    #!/bin/sh\n",
        b"web: {root: /srv, index.html: x}\n",
        b"files: [{path: /a, content: b}]\n",
        b"source: ../../etc/passwd",
        b"users: [{name: a, sudo: true}]\n",
        b"volumes: [{device: /dev/xvda, root: true, size: 4GiB}]\n",
        b"checks: [{http: {port: 80, path: /}}]\n",
        b"&a ",
        b"*a",
        b"<<: ",
        b"!!binary ",
        b"\n---\n",
    ],
    // Texts may grow to what the language allows.
    fixed_memory: 64 << 20,
    memory_a_byte: 16 << 10,
    ..Target::new("recipe", "a recipe, with a base, variables and sources", 8 << 10, |input| {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let path = folder.path().join("recipe.yaml");
        fs::write(&path, input).expect("a file in it");
        match recipe::load(&path, &LoadOptions::default()) {
            Ok(source) => {
                assert!(source.warnings().iter().all(|one| one.severity == recipe::Severity::Warning));
                for arch in source.architectures() {
                    let recipe = source.for_arch(*arch).expect("an architecture that it names");
                    assert!(recipe.name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/'));
                }
            }
            Err(problems) => {
                assert!(problems.has_errors());
                problems.to_json();
                let shown = problems.render(false);
                let wild = |c: char| c.is_control() && c != '\n';
                assert!(!shown.contains(wild), "a message has no control characters: {shown:?}");
            }
        }
    })
};

pub(super) const LOCK: Target = Target {
    words: &[
        b"version = 1\n",
        b"\n[[source]]\n",
        b"\n[arch.x86_64]\n",
        b"packages = [\n",
        b"sha256 = \"",
        b"{ name = ",
    ],
    memory_a_byte: 2048,
    ..Target::new("lock", "a lock file", 16 << 10, |input| {
        let path = Path::new("a.lock");
        let lock = match Lock::from_text(text(input), path) {
            Ok(lock) => lock,
            Err(error) => return can_be_shown(&error),
        };
        let written = lock.to_text();
        let read = Lock::from_text(&written, path).expect("what is written can be read");
        assert_eq!(read.to_text(), written, "what is written reads the same");
        assert_eq!(read.digest(), lock.digest());
    })
};
