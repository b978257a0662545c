//! Signed Debian repositories, version order, the solver, the download cache, and reading .deb files.
//!
//! *What comes in:* the names of repositories and packages, files, and the time as a value. *What goes out:* which
//! packages make a goal whole ([`solve`]), their files on disk with their hashes checked, and what is inside
//! such a file ([`deb`]). *What it may not do:* read a clock, trust an unsigned or expired index, or know what an
//! image is.

pub mod control;
pub mod deb;
pub mod tar;
