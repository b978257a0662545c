//! For tests only: a small Debian repository with real .deb files, signed by a key made for the test, and a server on the
//! loopback that serves it as a bad mirror or a bad network would.
//!
//! *What comes in:* what the test wishes. *What goes out:* folders and answers, the same at every run: keys come from a
//! fixed seed, dates from the caller. *What it may not do:* be part of the program. A test key counts only where a recipe
//! names it in `distribution.signed_by`, or a test puts it into a key ring of its own.

mod archive;
mod keys;
mod server;

pub use archive::{Archive, Package, compress, deb, deb_of, tar_member};
pub use keys::{CREATED, NOW, SubkeyWish, TestKey, Wish, sign_by_all};
pub use server::{Behaviour, Server, gone};
