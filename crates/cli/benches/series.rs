//! A series of images for the benches: what stays the same from one to the next, and what changes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use block::Digest;

/// One image of a series: Debian 13 for x86_64 with a web server, git and a library of python.
#[derive(Clone, Copy)]
pub(crate) struct Step {
    /// What happens in it.
    pub(crate) name: &'static str,
    /// Whether updates are in.
    pub(crate) updates: bool,
    /// What the page says.
    pub(crate) page: &'static str,
    /// More packages: `, php-fpm`.
    pub(crate) more: &'static str,
}

/// The raw disk of a step in a volume of `gib` GiB, baked where `folder` does not have it yet: against `parent`, a raw disk, or without one.
pub(crate) fn disk(folder: &Path, cache: &Path, step: &Step, gib: u32, parent: Option<&Path>) -> PathBuf {
    let Step { updates, page, more, .. } = *step;
    let text = format!(
        "name: series\nextends: builtin:debian-13\narchitectures: [x86_64]\n\
         distribution: {{updates: {updates}, security: {updates}}}\n\
         packages: [apache2, git, python3-boto3{more}]\n\
         web: {{root: /var/www/html, index.html: \"<h1>{page}</h1>\"}}\n\
         volumes: [{{device: /dev/xvda, root: true, size: {gib}GiB, type: gp3}}]\n"
    );
    let name = parent.and_then(Path::file_name);
    let key = Digest::of(format!("{text}{:?}{name:?}", bake::WRITERS).as_bytes()).to_hex();
    let path = folder.join(format!("{}-{}.raw", step.name.replace(' ', "-"), &key[..12]));
    if path.exists() {
        return path;
    }
    // One lock for images with the same packages: only the page differs, and the parent. Other writers want another.
    let writers = &Digest::of(format!("{:?}", bake::WRITERS).as_bytes()).to_hex()[..6];
    let recipe = folder.join(format!("series-{updates}-{}-{writers}.yaml", more.len()));
    fs::write(&recipe, text).unwrap();
    let (out, store) = (folder.join("out"), folder.join("bakes"));
    let mut bake = Command::new(env!("CARGO_BIN_EXE_bakehouse"));
    bake.args(["bake", "--no-check", "--arch", "x86_64", "--out"]).args([&out, &recipe]);
    bake.arg("--parent").arg(parent.unwrap_or(Path::new("none")));
    bake.env("BAKEHOUSE_CACHE", cache).env("BAKEHOUSE_STORE", store).stderr(Stdio::null());
    assert!(bake.status().unwrap().success(), "{} could not be baked", recipe.display());
    fs::rename(out.join("xvda.raw"), &path).unwrap();
    fs::remove_dir_all(&out).unwrap();
    path
}

/// Bytes that the files of a folder take on the disk; none when it is not there.
pub(crate) fn size(folder: &Path) -> u64 {
    let mut bytes = 0;
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let metadata = entry.metadata().unwrap();
        bytes += if metadata.is_dir() { size(&entry.path()) } else { metadata.blocks() * 512 };
    }
    bytes
}
