//! The targets: one for each parser of foreign data.

mod accounts;
mod archives;
mod debian;
mod disks;
mod file_systems;
mod guests;
mod images;
mod recipes;
mod stores;
mod trees;

use crate::Target;

/// All targets.
pub const TARGETS: &[Target] = &[
    archives::TAR,
    archives::DEB,
    debian::CONTROL,
    debian::RELATION,
    debian::VERSION,
    debian::IN_RELEASE,
    debian::KEYS,
    debian::PACKAGES,
    debian::APT_SOURCES,
    recipes::RECIPE,
    recipes::LOCK,
    disks::VMDK,
    file_systems::FILE_SYSTEMS,
    guests::CONSOLE,
    guests::HTTP_REPLY,
    guests::METADATA,
    images::ELF,
    images::INITRD,
    images::LINT,
    images::MANIFEST,
    images::LAYOUT,
    stores::STORE,
    trees::TREE,
    accounts::REGISTRATION,
    accounts::ACCOUNT,
];

/// The input as text, cut where it is no longer UTF-8.
fn text(input: &[u8]) -> &str {
    match std::str::from_utf8(input) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&input[..error.valid_up_to()]).unwrap_or_default(),
    }
}

/// Checks that a message can be shown: it is not endless, and a terminal would obey nothing in it.
fn can_be_shown(message: &impl std::fmt::Display) {
    let message = message.to_string();
    assert!(message.len() < 64 << 10, "a message has {} bytes", message.len());
    let wild = |c: char| block::is_obeyed(c) && c != '\n' && c != '\t';
    assert!(!message.contains(wild), "a message has control characters: {message:?}");
}
